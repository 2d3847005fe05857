"""lmms-eval's own package against our harness: parsers, judges' words, and one number by three ways.

It runs in processes of its own, offline, from the folder that `make test-slow` installs it into.
"""

import json
import os
import random
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.evaluate.referee import OPTIONS
from tests.evaluate.toy_sets import Toy, write_set
from tests.judging.judge_server import JudgeServer
from tests.serve.conftest import serving

from llava_next_video.assistant import VideoAssistant
from llava_next_video.evaluate import examine, prepare
from llava_next_video.evaluate.items import Item
from llava_next_video.evaluate.manifest import Manifest
from llava_next_video.evaluate.parsers import PARSERS
from llava_next_video.evaluate.rubrics import (
    CONSISTENCY,
    CONTEXT,
    CORRECTNESS,
    DESCRIPTION,
    DETAIL,
    MATCH,
    TEMPORAL,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
ANSWERS = 3000
REFUSED = (
    "unknown model_args num_frame; known: pretrained, num_frames",
    "leave --batch_size at 1: the engine takes as many requests at once as fit",
    "sampling how='middle' was given; expected one of uniform",
    "the task asks for repetition, num_beams, which the engine does not do",
)
"""What the plug-in says to arguments and settings that it does not honour."""


@pytest.fixture(scope="module")
def lmms_eval() -> Path:
    """The folder with lmms-eval and what it needs."""
    folder = Path(os.environ.get("LNV_REFEREES", ".venv/referees")).absolute() / "lmms-eval"
    if not (folder / "lmms_eval").is_dir():
        pytest.skip(
            f"lmms-eval is not at hand in {folder}; name its parent in LNV_REFEREES (make test-slow does)"
        )
    return folder


def run(lmms_eval: Path, home: Path, *command: str | Path) -> str:
    """Run Python where lmms-eval finds itself, and our entry points as pyproject.toml declares them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = home / "installed" / f"llava_next_video-{project['version']}.dist-info"
    installed.mkdir(parents=True, exist_ok=True)
    (installed / "METADATA").write_text(f"Name: llava-next-video\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
        for group, points in project["entry-points"].items()
    ]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    paths = (installed.parent, ROOT / "src", lmms_eval)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, cwd=home, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Answers as models give them, and worse."""
    dice = random.Random(0)
    pieces = [
        *"ABCDEabcd",
        *(
            "(A)",
            "(B)",
            "B.",
            "C:",
            "D)",
            "a star",
            "The answer is",
            "Best option: ",
            "answer is (",
            "because",
        ),
        *(
            "I think",
            "A man",
            "D. cross",
            "ring",
            ",",
            ".",
            "'",
            '"',
            "\n",
            "3,000",
            "答案是",
            "it is not",
            "!",
            "?",
        ),
    ]
    joined = [dice.choice(("", " ")).join(dice.choices(pieces, k=dice.randint(0, 9))) for _ in range(ANSWERS)]
    return ["", " ", *OPTIONS, *OPTIONS.values(), *joined]


def test_parsers_and_rubrics_are_those_of_lmms_eval_and_the_plug_in_refuses_what_it_ignores(
    lmms_eval: Path, said: list[str], server: JudgeServer, tmp_path: Path
) -> None:
    server.reply = lambda prompt: "{'pred': 'yes', 'score': 4}"
    (tmp_path / "given.json").write_text(json.dumps({"answers": said, "judge": server.url}))
    script = Path(__file__).with_name("referee.py")
    run(lmms_eval, tmp_path, script, tmp_path / "given.json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    refusals = found.pop("refusals")
    assert found.keys() == PARSERS.keys() - {"first-letter"}
    for name, letters in found.items():
        ours = [PARSERS[name](answer, list(OPTIONS.values())) for answer in said]
        wrong = [one for one in zip(said, letters, ours, strict=True) if one[1] != one[2]]
        assert wrong == [], f"{name}: {len(wrong)} differ"
        assert len(set(letters)) > 4
    assert [
        sentence for sentence, wanted in zip(refusals, REFUSED, strict=True) if wanted not in sentence
    ] == []
    item = Item(id="", video="", questions=("What turns?",), truth="a star")
    pair = Item(id="", video="", questions=("What turns?", "Which turns?"), truth="a star")
    one, two = ["It is a ring."], ["It is a ring.", "A star."]
    rubrics = [(MATCH, item, one), (CORRECTNESS, item, one), (DETAIL, item, one), (CONTEXT, item, one)]
    rubrics += [(TEMPORAL, item, one), (CONSISTENCY, pair, two), (DESCRIPTION, item, one)]
    ours = [(rubric.system, rubric.prompt(about, answers)) for rubric, about, answers in rubrics]
    asked = [tuple(message["content"] for message in body["messages"]) for body in server.asked]
    assert asked == ours


@pytest.fixture(scope="module")
def home(toys: list[Toy], clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face home with the videos of the toy set, where Video-MME's are."""
    home = tmp_path_factory.mktemp("home")
    (home / "videomme").mkdir()
    (home / "videomme" / "data").symlink_to(clips)
    return home


PAGE = (ROOT / "docs" / "evaluate.md").read_text()


def local_task(lmms_eval: Path, home: Path, toys: Sequence[Toy]) -> Path:
    """Write the task that docs/evaluate.md shows; gives its table."""
    table = write_set("videomme", toys, home)
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    (home / "tasks").mkdir(exist_ok=True)
    task = shown.replace("include: ", f"include: {lmms_eval}/").replace("test.parquet", str(table))
    (home / "tasks" / "videomme_local.yaml").write_text(task)
    return table


def score_of(
    lmms_eval: Path, home: Path, name: str, change: tuple[str, str] = ("", "")
) -> tuple[float, list[str]]:
    """The score and the answers that lmms-eval has of a model, by the command that docs/evaluate.md shows."""
    joined = PAGE.replace("\\\n", " ")
    (shown,) = (line for line in joined.splitlines() if f"python -m lmms_eval --model {name} " in line)
    words = shlex.split(shown.replace(*change).partition(" python ")[2])
    run(lmms_eval, home, *words)
    out = home / words[-1]
    (results,) = out.rglob("*results.json")
    (samples,) = out.rglob("*samples*.jsonl")
    told = json.loads(results.read_text())["results"]["videomme_local"]["videomme_perception_score,none"]
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return told, [line["filtered_resps"] for line in sorted(lines, key=lambda line: line["doc_id"])]


def ours(
    table: Path, clips: Path, assistant: VideoAssistant, model: Manifest, out: Path
) -> tuple[float, list[str]]:
    """The score and the answers that we have of it."""
    work = prepare("videomme", [table], clips, protocol="lmms-eval")
    report = examine(work, out, assistant=assistant, model=model)
    items = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert 0 < report.overall().mean < 100
    return report.overall().mean, [one["answers"][0]["answer"] for one in items]


def test_the_plug_in_gives_lmms_eval_our_answers_and_it_gives_our_score(
    lmms_eval: Path,
    home: Path,
    toys: list[Toy],
    clips: Path,
    assistant: VideoAssistant,
    model: Manifest,
    tmp_path: Path,
) -> None:
    table = local_task(lmms_eval, home, toys)
    theirs = score_of(lmms_eval, home, "llava_next_video")
    assert theirs == ours(table, clips, assistant, model, tmp_path)


def test_our_server_gives_lmms_eval_our_answers_and_it_gives_our_score(
    lmms_eval: Path,
    home: Path,
    toys: list[Toy],
    clips: Path,
    assistant: VideoAssistant,
    model: Manifest,
    tmp_path: Path,
) -> None:
    table = local_task(lmms_eval, home, toys)
    wanted = ours(table, clips, assistant, model, tmp_path)
    with serving(VideoAssistant.load(), folders=(home / "videomme", clips), model_name="toy") as running:
        theirs = score_of(lmms_eval, home, "openai", ("http://127.0.0.1:8000", running.url))
    assert theirs == wanted
