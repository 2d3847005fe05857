"""The command answers on stdout, and refuses in one sentence with exit code 1."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from llava_next_video import VideoAssistant
from llava_next_video.cli import run
from llava_next_video.media import write_clip


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command; gives exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llava-next-video", *map(str, words)])
        code = run()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_answer_alone_goes_to_stdout(command, tiny_checkpoint: Path, square_clip: Path) -> None:
    code, out, err = command(
        "ask", square_clip, "What happens?", "--model", tiny_checkpoint, "--max-new-tokens", 8
    )
    expected = VideoAssistant.load(tiny_checkpoint).ask(square_clip, "What happens?", max_new_tokens=8)
    assert (code, out) == (0, f"{expected.text}\n")
    assert err == f"loading {tiny_checkpoint}\n"


def test_json_tells_what_the_model_saw(
    command, tiny_checkpoint: Path, square_clip: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "black.png")
    code, out, _ = command(
        "ask", square_clip, tmp_path / "black.png", "Which?", "--model", tiny_checkpoint,
        "--frames", 4, "--max-new-tokens", 2, "--json",
    )  # fmt: skip
    told = json.loads(out)
    assert code == 0
    assert told["question"] == "Which?"
    assert told["usage"]["completion_tokens"] == 2
    assert [medium["kind"] for medium in told["media"]] == ["video", "image"]
    assert told["media"][0]["frame_times_s"] == [0.0, 0.5, 1.0, 1.5]
    assert told["media"][0]["sampling"]["how"] == "uniform"
    assert told["media"][1]["size"] == {"height": 30, "width": 40}


def test_a_clip_that_breaks_off_is_answered_with_a_note(
    command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
    cut = write_clip(tmp_path / "cut.mkv", noise, 12)
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) * 3 // 4])
    code, out, err = command("ask", cut, "?", "--model", tiny_checkpoint, "--json", "--max-new-tokens", 1)
    (told,) = json.loads(out)["media"]
    assert code == 0
    assert told["claimed_s"] == pytest.approx(2.0)  # 24 frames, 12 a second
    assert told["duration_s"] == pytest.approx(told["frame_count"] / 12)
    assert re.search(rf"note: {cut} breaks off after \d\.\d s of the 2\.0 s that its container promises", err)


def test_a_clip_with_fewer_frames_than_asked_for_is_answered_with_a_note(
    command, tiny_checkpoint: Path, square_clip: Path
) -> None:
    asked = ("ask", square_clip, "?", "--model", tiny_checkpoint, "--max-new-tokens", 1)
    code, _, err = command(*asked, "--frames", 25)
    assert code == 0
    assert f"note: {square_clip} has 24 frames, all looked at; 25 were wanted\n" in err
    assert "note" not in command(*asked, "--frames", 24)[2]


def test_an_adapter_is_added_to_the_checkpoint(
    command, tiny_checkpoint: Path, square_clip: Path, tmp_path: Path
) -> None:
    config = AutoConfig.from_pretrained(tiny_checkpoint).text_config
    name = "base_model.model.model.language_model.layers.0.mlp.down_proj.lora_{}.weight"
    dice = torch.Generator().manual_seed(0)
    save_file(
        {
            name.format("A"): torch.randn(2, config.intermediate_size, generator=dice),
            name.format("B"): torch.randn(config.hidden_size, 2, generator=dice),
        },
        tmp_path / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 32, "target_modules": ["down_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    asked = ("ask", square_clip, "What moves?", "--model", tiny_checkpoint, "--max-new-tokens", 8)
    code, out, err = command(*asked, "--adapter", tmp_path)
    loaded = VideoAssistant.load(tiny_checkpoint, adapter=tmp_path)
    assert (code, err) == (0, f"loading {tiny_checkpoint}\n")
    assert out == f"{loaded.ask(square_clip, 'What moves?', max_new_tokens=8).text}\n"
    assert out != command(*asked)[1]
    code, _, err = command(*asked, "--adapter", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (1, 2)
    assert f"{tmp_path / 'nowhere'} is no folder here" in err


@pytest.mark.parametrize(
    "verb", [["ask", "clip.mp4", "Why?"], ["chat"], ["caption", "clip.mp4", "--output", "out"]]
)
def test_an_adapter_is_not_for_servers(
    command, verb: list[str], square_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(square_clip, "clip.mp4")
    code, _, err = command(*verb, "--server", "localhost:1", "--adapter", "lora")
    assert code == 1
    assert "--adapter is " in err


def test_a_plan_is_printed_without_loading_weights(
    command, tiny_checkpoint: Path, square_clip: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "light")
    (tmp_path / "light" / "model.safetensors").write_bytes(b"no weights")
    asked = ("ask", square_clip, "What happens?", "--model", tmp_path / "light", "--plan")
    code, out, err = command(*asked, "--frames", 6)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{square_clip}: 6 frames, 24 visual tokens"  # 4 a frame
    assert "of 4096 that the context holds (rope factor 1)" in out
    assert out.splitlines()[-1] == "it fits; up to 24 frames a clip would fit"  # it has no more
    _, out, _ = command(*asked, "--frames", 6, "--max-visual-tokens", 15, "--json")
    assert json.loads(out)["media"][0]["frames"] == 3
    code, _, err = command(*asked, "--max-visual-tokens", 3)
    assert code == 1
    assert "need more than --max-visual-tokens=3; 4 would do" in err
    code, out, _ = command(*asked, "--max-new-tokens", 5000, "--json")
    told = json.loads(out)
    assert code == 1  # a script need not read it to know that it does not fit
    assert told["prompt_tokens"] + 5000 > 4096
    assert told["rope_factor_needed"] == 1.5  # 5,054 of 4,096 tokens, in halves
    assert told["frames_that_fit"] == 0
    code, _, err = command(*asked, "--rope-factor", "wide")
    assert (code, err) == (
        1,
        "llava-next-video: --rope-factor 'wide'; expected a number such as 2, or auto\n",
    )


def test_the_rope_factor_may_follow_from_the_question(
    command, tiny_checkpoint: Path, square_clip: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "short")
    config = (tmp_path / "short" / "config.json").read_text()
    shrunk = config.replace('"max_position_embeddings": 4096', '"max_position_embeddings": 64')
    (tmp_path / "short" / "config.json").write_text(shrunk)
    asked = ("ask", square_clip, "What happens?", "--model", tmp_path / "short", "--max-new-tokens", 4)
    code, _, err = command(*asked, "--frames", 16)
    assert code == 1
    assert "64 fit" in err
    code, out, _ = command(*asked, "--frames", 16, "--rope-factor", "auto", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["usage"]["visual_tokens"] == 64
    assert len(told["media"][0]["frame_times_s"]) == 16


def test_a_plan_tells_of_slow_and_fast_frames_and_of_the_kind_of_rope(
    command, tiny_checkpoint: Path, square_clip: Path
) -> None:
    asked = ("ask", square_clip, "What happens?", "--model", tiny_checkpoint, "--plan", "--frames", 9)
    code, out, _ = command(*asked, "--slow-fast", 4, "--newline", "frame")
    # frames 0, 4 and 8 have 4 tokens, the others 1, and each a newline
    assert (code, out.splitlines()[0]) == (0, f"{square_clip}: 9 frames, 27 visual tokens")
    code, out, _ = command(*asked, "--rope-kind", "yarn", "--max-new-tokens", 9000)
    assert code == 0
    assert "of 10240 that the context holds (yarn rope factor 2.5)" in out
    assert out.splitlines()[-1].startswith("it fits")


def test_the_flags_for_long_clips_change_what_is_asked(
    command, tiny_checkpoint: Path, square_clip: Path
) -> None:
    asked = ("ask", square_clip, "?", "--model", tiny_checkpoint, "--frames", 9, "--max-new-tokens", 1)
    plain = json.loads(command(*asked, "--json")[1])["usage"]
    slow = json.loads(command(*asked, "--json", "--slow-fast", 4, "--slow-stride", 1)[1])["usage"]
    assert (plain["visual_tokens"], slow["visual_tokens"]) == (36, 3 * 16 + 6 * 4)
    timed = json.loads(command(*asked, "--json", "--time-instruction", "--rope-factor", 2)[1])["usage"]
    assert timed["visual_tokens"] == 36
    assert timed["prompt_tokens"] > plain["prompt_tokens"] + 30


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--slow-fast", 1], "slow-fast with every=1 leaves no fast frames; give a whole number, 2 or more"),
        (["--slow-stride", 2], "--slow-stride 2 is for slow frames; say which with --slow-fast"),
        (["--slow-fast", 4, "--slow-stride", 3], "6 does not divide a frame of 4x4 patches; use another"),
        (["--rope-factor", 0.5], "rope factor 0.5 is below 1"),
        (
            ["--server", "http://127.0.0.1:1", "--slow-fast", 4],
            "--slow-fast is for a model that is loaded here",
        ),
        (
            ["--server", "http://127.0.0.1:1", "--rope-kind", "yarn"],
            "--rope-kind is for a model that is loaded",
        ),
    ],
)
def test_flags_for_long_clips_that_cannot_be_honoured_are_refused(
    command, tiny_checkpoint: Path, square_clip: Path, flags: list[object], says: str
) -> None:
    model = [] if "--server" in flags else ["--model", tiny_checkpoint]
    code, _, err = command("ask", square_clip, "?", *model, *flags)
    assert code == 1
    assert says in err.splitlines()[-1]


def test_usage_goes_to_stderr(command, tiny_checkpoint: Path, square_clip: Path) -> None:
    _, out, err = command(
        "ask", square_clip, "?", "--model", tiny_checkpoint, "--max-new-tokens", 3, "--usage"
    )
    assert json.loads(err.splitlines()[-1])["completion_tokens"] == 3
    assert "completion_tokens" not in out


def test_frames_per_second_choose_the_moments(command, tiny_checkpoint: Path, square_clip: Path) -> None:
    _, out, _ = command(
        "ask", square_clip, "?", "--model", tiny_checkpoint, "--fps", 3, "--json", "--max-new-tokens", 1
    )
    assert json.loads(out)["media"][0]["frame_times_s"] == pytest.approx([n / 3 for n in range(6)], abs=1e-3)


def test_a_contact_sheet_is_drawn(command, tiny_checkpoint: Path, square_clip: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    code, _, _ = command(
        "ask", square_clip, "?", "--model", tiny_checkpoint, "--contact-sheet", sheet, "--max-new-tokens", 1
    )
    drawn = np.asarray(Image.open(sheet).convert("RGB")).astype(int)
    reddish = (drawn[..., 0] > 150) & (drawn[..., 2] < 100)
    assert code == 0
    assert reddish.sum() > 500  # the square of the clip


def write_audio(path: Path) -> None:
    """Half a second of silence in an MP4 without a video stream."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)


def test_a_contact_sheet_shows_every_medium(
    command, tiny_checkpoint: Path, square_clip: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (96, 72), (0, 200, 0)).save(tmp_path / "green.png")
    media = [square_clip, tmp_path / "green.png"]
    flags = ["--model", tiny_checkpoint, "--max-new-tokens", 1, "--contact-sheet", tmp_path / "sheet.png"]
    assert command("ask", *media, "?", *flags)[0] == 0
    drawn = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    reddish = (drawn[..., 0] > 150) & (drawn[..., 2] < 100)
    green = (drawn == (0, 200, 0)).all(axis=-1)
    assert reddish.sum() > 500
    assert green.sum() > 10_000
    assert np.argwhere(reddish)[:, 0].max() < np.argwhere(green)[:, 0].min()


@pytest.fixture
def bad(tmp_path: Path, tiny_checkpoint: Path, square_clip: Path) -> dict[str, Path]:
    """Files and folders that cannot be used."""
    (tmp_path / "text.mp4").write_text("this is no clip\n" * 50)
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.mp4").write_bytes(square_clip.read_bytes()[:300])
    for name in ("corrupt", "pickle", "configless", "holes", "short"):
        shutil.copytree(tiny_checkpoint, tmp_path / name)
    (tmp_path / "corrupt" / "model.safetensors").write_bytes(b"\x10" + bytes(500))
    (tmp_path / "pickle" / "model.safetensors").rename(tmp_path / "pickle" / "pytorch_model.bin")
    (tmp_path / "configless" / "config.json").unlink()
    weights = load_file(tiny_checkpoint / "model.safetensors")
    del weights["image_newline"]
    save_file(weights, tmp_path / "holes" / "model.safetensors", metadata={"format": "pt"})
    config = (tmp_path / "short" / "config.json").read_text()
    config = config.replace('"max_position_embeddings": 4096', '"max_position_embeddings": 64')
    (tmp_path / "short" / "config.json").write_text(config)
    write_audio(tmp_path / "audio.mp4")
    Image.new("RGB", (8, 8)).save(tmp_path / "still.png")
    (tmp_path / "folder.png").mkdir()
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("medium", "flags", "says"),
    [
        ("absent.mp4", [], r"absent\.mp4: no such file, folder or URL"),
        ("empty", [], "empty"),
        ("text.mp4", [], r"text\.mp4"),
        ("zero.mp4", [], r"zero\.mp4"),
        ("cut.mp4", [], r"cut\.mp4"),
        ("audio.mp4", [], r"audio\.mp4: .*audio"),
        (None, ["--model", "{holes}"], "image_newline"),
        (None, ["--model", "{short}", "--frames", "20"], "tokens needed .* 64 fit .* fewer frames"),
        (None, ["--frames", "0"], "0"),
        (None, ["--frames=-3"], "-3"),
        (None, ["--fps", "0"], "0"),
        (None, ["--sampler", "lucky"], "unknown sampler 'lucky'; known: uniform, linspace, fps"),
        (None, ["--sampler", "linspace", "--fps", "2"], "contradict each other"),
        (None, ["--frame", "3"], "No such option: --frame .*--frames"),
        (None, ["--dtype", "int3"], "unknown dtype 'int3'"),
        (None, ["--temperature", "-1"], "temperature is -1"),
        (None, ["--contact-sheet", "/nowhere/sheet.png"], "its folder does not exist"),
        (None, ["--contact-sheet", "sheet.txt"], r"ends in \.png"),
        ("still.png", ["--contact-sheet", "{still.png}"], "is one of the media"),
        (None, ["--contact-sheet", "{folder.png}"], "cannot be written"),
        (None, ["--model", "tinny"], "'tinny' is no folder here"),
        (None, ["--model", "{corrupt}"], "corrupt"),
        (None, ["--model", "{pickle}"], "pickle"),
        (None, ["--model", "{configless}"], r"no config\.json"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(
    command,
    tiny_checkpoint: Path,
    square_clip: Path,
    bad: dict[str, Path],
    medium: str | None,
    flags: list[str],
    says: str,
    tmp_path: Path,
) -> None:
    before = sorted(tmp_path.rglob("*"))
    flags = [str(bad[flag[1:-1]]) if flag.startswith("{") else flag for flag in flags]
    clip = square_clip if medium is None else tmp_path / medium
    code, out, err = command("ask", clip, "What happens?", "--model", tiny_checkpoint, *flags)
    last = err.splitlines()[-1]
    assert (code, out) == (1, "")
    assert re.search(says, last), err
    assert last.startswith("llava-next-video: ")
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_rope_factor_makes_room_for_more_frames(command, bad: dict[str, Path], square_clip: Path) -> None:
    asked = ["ask", square_clip, "?", "--model", bad["short"], "--frames", 20, "--max-new-tokens", 2]
    assert command(*asked)[0] == 1
    assert command(*asked, "--rope-factor", 2)[0] == 0
    assert command(*asked, "--rope-factor", 0.5)[0] == 1


def test_the_reference_network_says_the_same(command, tiny_checkpoint: Path, square_clip: Path) -> None:
    asked = ["ask", square_clip, "What happens?", "--model", tiny_checkpoint, "--max-new-tokens", 6]
    assert command(*asked, "--reference")[1] == command(*asked)[1]


def test_a_question_without_a_medium_is_explained(command) -> None:
    code, _, err = command("ask", "What happens?", "--model", "anything")
    assert code == 1
    assert "stands alone" in err


def test_a_missing_argument_is_wrong_usage(command) -> None:
    code, _, err = command("ask")
    assert code == 2
    assert "Missing argument" in err


def test_a_random_checkpoint_of_an_unknown_preset_lists_the_known_ones(command, tmp_path: Path) -> None:
    code, _, err = command("convert", "random", "--preset", "huge", tmp_path / "out")
    assert (code, err) == (1, "llava-next-video: unknown preset 'huge'; known: tiny, mid, 7b\n")


def test_env_prints_what_a_bug_report_needs(command) -> None:
    import torch

    code, out, _ = command("env")
    assert code == 0
    assert re.search(rf"^torch +{re.escape(torch.__version__.split('+')[0])}", out, re.M)
    assert re.search(r"^cuda +", out, re.M)


@pytest.mark.slow
def test_two_processes_that_share_a_network_answer_as_one(
    command, tiny_checkpoint: Path, square_clip: Path
) -> None:
    asked = ("ask", square_clip, "What happens?", "--model", tiny_checkpoint, "--dtype", "float32")
    alone = command(*asked, "--max-new-tokens", 8)
    assert alone[0] == 0
    assert alone[1].strip()
    assert command(*asked, "--max-new-tokens", 8, "--device", "cpu", "--tensor-parallel", 2) == alone


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--tensor-parallel", 3), "which 3 devices cannot share evenly; take a divisor"),
        (("--tensor-parallel", 0), "tensor_parallel is 0; it counts processes and is 1 or more"),
        (("--tensor-parallel", 2, "--reference"), "leave it out for the reference network"),
        (("--tensor-parallel", 2, "--quantize", "bnb-4bit"), "leave it out for the reference network"),
        (
            ("--tensor-parallel", 2, "--server", "http://127.0.0.1:9"),
            "--tensor-parallel is for a model that is loaded here; leave it out with --server",
        ),
    ],
    ids=str,
)
def test_a_network_that_cannot_be_shared_so_is_refused_in_one_line(
    command, tiny_checkpoint: Path, square_clip: Path, flags: tuple[object, ...], sentence: str
) -> None:
    model = () if "--server" in flags else ("--model", tiny_checkpoint, "--device", "cpu")
    code, out, err = command("ask", square_clip, "What?", *model, *flags)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].endswith(sentence)


def test_gpus_of_this_machine_are_not_shared_by_models_on_ray(
    command, square_clip: Path, tmp_path: Path
) -> None:
    shared = ("--ray", "local", "--tensor-parallel", 2)
    code, _, err = command("caption", square_clip, "--output", tmp_path / "out", *shared)
    assert code == 1
    assert "shares the GPUs of this machine, and a model on Ray has one" in err
    assert not (tmp_path / "out").exists()
    code, _, err = command("serve", "--ray", "replicas=2", "--tensor-parallel", 2)
    assert code == 1
    assert "shares the GPUs of this machine, and a replica on Ray has one" in err
