"""A small processor and small media."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import PreTrainedTokenizerFast

from llava_next_video.convert.tokenizer import SMALL_TALK, byte_level_bpe
from llava_next_video.processing import (
    LlavaNextImageProcessor,
    LlavaNextVideoImageProcessor,
    LlavaNextVideoProcessor,
    chat_template,
)

SIDE = 56
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
LLAMA = Path(__file__).parents[3] / "shared" / "tokenizers" / "llama2" / "tokenizer.json"


def make_processor(tokenizer: PreTrainedTokenizerFast, **settings: object) -> LlavaNextVideoProcessor:
    """A processor whose frames have 56 pixels: 4x4 patches, 2x2 tokens after pooling."""
    square = {"height": SIDE, "width": SIDE}
    return LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoImageProcessor(size={"shortest_edge": SIDE}, crop_size=square),
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": SIDE}, crop_size=square, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer=tokenizer,
        **{
            "chat_template": chat_template("vicuna"),
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
            **settings,
        },
    )


@pytest.fixture(scope="session")
def small_tokenizer() -> PreTrainedTokenizerFast:
    return byte_level_bpe([SMALL_TALK], vocabulary=320)


@pytest.fixture
def processor(small_tokenizer) -> LlavaNextVideoProcessor:
    return make_processor(small_tokenizer)


@pytest.fixture(scope="session")
def llama_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the 7B checkpoints, where its vocabulary is at hand."""
    if not LLAMA.exists():
        pytest.skip("the Llama-2 vocabulary does not lie beside the repository")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(LLAMA), bos_token="<s>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )
    tokenizer.add_tokens(["<video>", "<image>"], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def clip(draw) -> np.ndarray:
    """Eight frames of noise, 90 rows of 160 pixels."""
    return draw.integers(0, 256, (8, 90, 160, 3), dtype=np.uint8)


@pytest.fixture
def picture(draw) -> Image.Image:
    """Noise, 50 pixels wide and 90 high."""
    return Image.fromarray(draw.integers(0, 256, (90, 50, 3), dtype=np.uint8))
