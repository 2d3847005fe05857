"""Where the placeholders and the padding of a prompt stand."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llava_next_video.errors import PromptError
from llava_next_video.inputs import MediumKind
from llava_next_video.model.configuration import UNTOLD, LlavaNextVideoConfig


def refuse_mismatch(kind: MediumKind, in_rows: Sequence[int], media: Sequence[int]) -> None:
    """Raise unless the placeholders in each row of a batch are the visual tokens of whole media, in order.

    Args:
        kind: What the placeholders stand for.
        in_rows: Placeholders in each row.
        media: Visual tokens of each medium.

    Raises:
        PromptError: with the tokens per medium.
    """
    wanted, given = sum(in_rows), sum(media)
    name = f"<{kind}>"
    if wanted and not media:
        raise PromptError(f"the prompt has {wanted} {name} placeholders, but no {kind} was given")
    if wanted != given:
        raise PromptError(
            f"the prompt has {wanted} {name} placeholders, but {len(media)} {kind}(s) give {given} visual "
            f"tokens ({_listed(media)}); let the processor of this checkpoint write them"
        )
    ends = {0, *accumulate(media)}
    for row, end in enumerate(accumulate(in_rows)):
        if end not in ends:
            raise PromptError(
                f"row {row} of the batch has {in_rows[row]} {name} placeholders, which ends inside a {kind}: "
                f"they give {_listed(media)} visual tokens"
            )


def placeholders(
    config: LlavaNextVideoConfig,
    table: nn.Module,
    input_ids: Int[Tensor, "batch length"] | None,
    inputs_embeds: Float[Tensor, "batch length width"] | None,
) -> dict[MediumKind, Bool[Tensor, "batch length"]]:
    """Where the placeholders of each kind stand: by their ids, or by their rows of the embedding table."""
    ids: tuple[tuple[MediumKind, int], ...] = (
        ("image", config.image_token_index),
        ("video", config.video_token_index),
    )
    if inputs_embeds is None:
        if input_ids is None:
            raise ValueError("give input_ids or inputs_embeds")
        return {kind: input_ids.eq(index) for kind, index in ids}
    told = {kind: index for kind, index in ids if index != UNTOLD}
    rows = {kind: table(torch.tensor(index, device=inputs_embeds.device)) for kind, index in told.items()}
    nowhere = torch.zeros(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
    return {kind: (inputs_embeds == rows[kind]).all(dim=-1) if kind in rows else nowhere for kind, _ in ids}


def to_left_padding(attention_mask: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"] | None:
    """For each place of each row the place to take from, so that padding at the end comes first.

    None when no row is padded at its end.

    >>> to_left_padding(torch.tensor([[1, 1, 0], [1, 1, 1]])).tolist()
    [[2, 0, 1], [0, 1, 2]]
    """
    length = attention_mask.shape[1]
    places = torch.arange(length, device=attention_mask.device)
    last = (places * (attention_mask != 0)).amax(dim=1, keepdim=True)
    if bool((last == length - 1).all()):
        return None
    return (places + last + 1) % length


def written_length(input_ids: Int[Tensor, "batch length"], config: LlavaNextVideoConfig) -> int:
    """Length of the longest prompt as it was written: placeholders in a row count as the one that was there.

    >>> from transformers import CLIPVisionConfig, LlamaConfig
    >>> config = LlavaNextVideoConfig(CLIPVisionConfig(), LlamaConfig(), video_token_index=9)
    >>> written_length(torch.tensor([[1, 9, 9, 9, 2]]), config)
    3
    """
    repeated = torch.zeros_like(input_ids, dtype=torch.bool)
    for index in (config.image_token_index, config.video_token_index):
        here = input_ids == index
        repeated[:, 1:] |= here[:, 1:] & here[:, :-1]
    return int((~repeated).sum(dim=1).max())


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:8])
    return shown if len(numbers) <= 8 else f"{shown}, ... {len(numbers)} in all"
