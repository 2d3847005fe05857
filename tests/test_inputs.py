"""Prompts become tensors without losing a tile."""

import torch
from torch import Tensor

from llava_next_video.inputs import Medium, ModelInputs, padded_batch
from llava_next_video.size import Size


def picture(tiles: int, height: int) -> Medium:
    return Medium(
        kind="image",
        start=1,
        tokens=2,
        key=b"k" * 32,
        size=Size(height=height, width=8),
        pixels=torch.full((tiles, 3, 4, 4), float(tiles)),
    )


def clip(frames: int) -> Medium:
    def pixels() -> Tensor:
        return torch.ones(frames, 3, 4, 4)

    return Medium(kind="video", start=1, tokens=2, key=b"k" * 32, size=None, pixels=pixels)


def test_the_shorter_prompt_is_padded_on_the_asked_side() -> None:
    prompts = [ModelInputs(ids=(5, 6, 7)), ModelInputs(ids=(8,))]
    left = padded_batch(prompts, pad_token_id=0)
    right = padded_batch(prompts, pad_token_id=0, side="right")
    assert isinstance(left["input_ids"], Tensor)
    assert isinstance(left["attention_mask"], Tensor)
    assert isinstance(right["input_ids"], Tensor)
    assert left["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]


def test_pictures_of_different_tile_counts_share_a_tensor_with_zeros_behind() -> None:
    prompts = [
        ModelInputs(ids=(1, 9, 9), media=(picture(2, 4),)),
        ModelInputs(ids=(1, 9), media=(picture(3, 6),)),
    ]
    batch = padded_batch(prompts, pad_token_id=0)
    pixels, sizes = batch["pixel_values"], batch["image_sizes"]
    assert isinstance(pixels, Tensor)
    assert isinstance(sizes, Tensor)
    assert pixels[:, :, 0, 0, 0].tolist() == [[2.0, 2.0, 0.0], [3.0, 3.0, 3.0]]
    assert sizes.tolist() == [[4, 8], [6, 8]]


def test_clips_keep_their_own_frame_counts() -> None:
    batch = padded_batch([ModelInputs(ids=(1, 9, 9), media=(clip(2), clip(5)))], pad_token_id=0)
    assert [tuple(one.shape) for one in batch["pixel_values_videos"]] == [(2, 3, 4, 4), (5, 3, 4, 4)]


def test_a_prompt_counts_its_visual_tokens() -> None:
    assert ModelInputs(ids=(1, 9, 9, 1, 9, 9), media=(clip(2), picture(2, 4))).visual_tokens == 4
