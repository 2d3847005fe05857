"""The documentation page's examples run with only the import line and the checkpoint's name changed.

The examples stand in `page/` as the page prints them, indented, with a missing quote put back. What they
fetch comes from a server on this machine; what they download from the hub is a clip made here.

Source: the page on LLaVA-NeXT-Video in the documentation of transformers 4.44 (Apache-2.0).
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BitsAndBytesConfig

from llava_next_video import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

PAGE = Path(__file__).parent / "page"
PICTURES = (
    "http://images.cocodataset.org/val2017/000000039769.jpg",
    "https://www.ilankelman.org/stopsigns/australia.jpg",
)
Run = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a picture on this machine."""
    folder = tmp_path_factory.mktemp("site")
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(folder / "picture.jpg")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/picture.jpg"
        server.shutdown()


@pytest.fixture
def run(tiny_checkpoint: Path, site: str, square_clip: Path) -> Run:
    """Runs examples one after the other in one namespace, as the page's reader does."""
    names: dict[str, Any] = {
        "hf_hub_download": lambda **_: str(square_clip),
        "BitsAndBytesConfig": BitsAndBytesConfig,
        "torch": torch,
        "np": np,
    }

    def run_example(name: str) -> dict[str, Any]:
        code = (PAGE / name).read_text()
        code = code.replace("from transformers import", "from llava_next_video import")
        code = code.replace("llava-hf/LLaVA-NeXT-Video-7B-hf", str(tiny_checkpoint))
        for picture in PICTURES:
            code = code.replace(picture, site)
        exec(compile(code, name, "exec"), names)
        return names

    return run_example


def test_the_chat_example_prints_a_prompt_with_both_media(run: Run) -> None:
    assert run("chat.py")["text_prompt"] == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the human's questions. USER: <image>\n"
        "What’s shown in this image? ASSISTANT: This image shows a red stop sign.</s>USER: <video>\n"
        "Why is this video funny? ASSISTANT:"
    )


@pytest.mark.filterwarnings("ignore:.*torch_dtype.*:FutureWarning")
def test_one_clip_then_a_picture_and_a_clip(run: Run) -> None:
    names = run("single.py")
    assert names["model"].dtype == torch.float16
    assert names["inputs"]["pixel_values_videos"].shape == (1, 8, 3, 56, 56)
    assert names["out"].shape[1] > names["inputs"]["input_ids"].shape[1]
    names["clip"] = names["video"]  # the page calls the clip by two names
    names = run("mixed.py")
    assert {"pixel_values", "image_sizes", "pixel_values_videos"} <= names["inputs"].keys()
    assert names["generate_ids"].shape[1] > names["inputs"]["input_ids"].shape[1]


def test_the_forward_example_answers_about_a_clip_and_a_picture(run: Run) -> None:
    names = run("forward.py")
    assert names["inputs_video"]["pixel_values_videos"].shape == (1, 8, 3, 56, 56)
    assert names["inputs_image"]["image_sizes"].tolist() == [[60, 80]]
    prompt = names["inputs_image"]["input_ids"]
    assert names["generate_ids"][0, : prompt.shape[1]].tolist() == prompt[0].tolist()
    assert names["generate_ids"].shape[1] > prompt.shape[1]


def test_the_configuration_example_makes_a_7b(run: Run) -> None:
    with torch.device("meta"):
        names = run("configuration.py")
    assert isinstance(names["configuration"], LlavaNextVideoConfig)
    assert isinstance(names["model"], LlavaNextVideoForConditionalGeneration)
    assert names["configuration"].text_config.hidden_size == 4096


@pytest.mark.slow
def test_the_quantised_example_loads_4_bit_weights(run: Run) -> None:
    pytest.importorskip("bitsandbytes", reason="the quant extra is not installed")
    model = run("quantised.py")["model"]
    for part, quantised in (("language_model", True), ("vision_tower", False)):
        kinds = {type(module).__name__ for module in getattr(model.model, part).modules()}
        assert ("Linear4bit" in kinds) is quantised


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without a GPU")
@pytest.mark.filterwarnings("ignore:.*torch_dtype.*:FutureWarning")
def test_the_flash_attention_example_says_what_is_missing(run: Run) -> None:
    with pytest.raises(ImportError, match=r"(?i)flash.?attention"):
        run("flash_attention.py")
