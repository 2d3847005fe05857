"""A small processor and small media."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, normalizers, pre_tokenizers
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
    """The tokenizer of the 7B checkpoints, from LNV_LLAMA_TOKENIZER."""
    path = Path(os.environ.get("LNV_LLAMA_TOKENIZER", "not named"))
    if not path.is_file():
        pytest.skip("no Llama-2 vocabulary; name its tokenizer.json in LNV_LLAMA_TOKENIZER")
    core = Tokenizer.from_file(str(path))
    # As the 7B checkpoints have it (`legacy=False`): only the very first word gets a space before it.
    core.normalizer = normalizers.Sequence([])
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )
    if tokenizer.convert_tokens_to_ids("\N{LOWER ONE EIGHTH BLOCK}US") != 3148:
        pytest.skip(f"{path.name} does not hold the Llama-2 vocabulary")
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
