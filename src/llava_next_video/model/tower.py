"""The vision tower, run only as deep as its features are used.

Knows the embeddings and layers of the two towers the model is trained with (CLIP, SigLIP), nothing behind.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel


def tower_features(
    tower: PreTrainedModel,
    pixels: Float[Tensor, "tiles channels height width"],
    *,
    layers: Sequence[int],
    drops_class_token: bool,
    chunk: int,
) -> Float[Tensor, "tiles patches features"]:
    """Hidden states of the wanted layers, side by side, for tiles or frames.

    Args:
        tower: A CLIP or SigLIP vision model.
        pixels: Normalised pixels of the size that the tower was made for.
        layers: Which hidden states, from 0, the embeddings. Layers behind the deepest are not computed.
        drops_class_token: Leave out the token before the patches.
        chunk: Tiles that pass at once: the memory of a pass does not grow with the length of a clip.
    """
    parts = [
        _pass(tower, part, layers=layers, first_patch=int(drops_class_token)) for part in pixels.split(chunk)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _pass(tower: PreTrainedModel, pixels: Tensor, *, layers: Sequence[int], first_patch: int) -> Tensor:
    hidden = tower.embeddings(pixels)
    if hasattr(tower, "pre_layrnorm"):
        hidden = tower.pre_layrnorm(hidden)
    found = {0: hidden}
    for depth in range(1, max(layers) + 1):
        hidden = tower.encoder.layers[depth - 1](hidden, None)
        if depth in layers:
            found[depth] = hidden
    chosen = [found[layer][:, first_patch:] for layer in layers]
    return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)
