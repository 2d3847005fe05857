"""How the language model starts: its words point where the facts that they name point, its heads look up.

Queries begin like keys, and values come out as what went in, so that a word finds the token of which it is
true.

Source: mimetic initialization, arXiv 2305.09828.
"""

import torch
from facts import BEGIN, PLACES, directions
from scenes import DOINGS, SIDES
from torch import nn

from llava_next_video.world.scene import CARDINAL, COLOURS, SHAPES, TEXTURES
from llava_next_video.world.wordings import NUMBERS


def meanings() -> dict[str, list[tuple[str, int, float]]]:
    """Words, and the facts that they name: group, number in it, and how strongly."""
    found: dict[str, list[tuple[str, int, float]]] = {}

    def add(word: str, group: str, which: int, much: float) -> None:
        found.setdefault(word, []).append((group, which, much))

    for i, colour in enumerate(COLOURS):
        add(colour, "colour", i, 0.35)
        add(colour, "colour at first", i, 0.35)
    for i, shape in enumerate(SHAPES):
        add(shape, "shape", i, 0.9)
    for i, number in enumerate(NUMBERS):
        add(number, "count", i, 0.5)
    for i, texture in enumerate(TEXTURES):
        add(texture.split()[0], "pattern", i, 0.5)
    for i, place in enumerate(PLACES):
        for word in place.split():
            add(word, "place", i, 0.15)
            add(word, "place at first", i, 0.15)
    for i, doing in enumerate(DOINGS):
        for word in doing.replace(",", "").split():
            if word not in ("and", "then", "moves"):
                add(word, "doing", i, 0.12)
    for i, way in enumerate(CARDINAL):
        add(way, "ways", i, 0.35)
        add(way, "ways then", i, 0.25)
    for i, (side, _, _) in enumerate(SIDES):
        add(side, "sides", i, 0.35)
        add(side, "sides at first", i, 0.35)
    for word, i in (("left", 0), ("center", 1), ("right", 2), ("top", 3), ("bottom", 5)):
        add(word, "part", i, 0.25)
    for word, i in (("first", 0), ("before", 0), ("last", 1), ("after", 1)):
        add(word, "turn", i, 0.4)
    for word, i in (("larger", 0), ("bigger", 0), ("smaller", 1)):
        add(word, "size", i, 0.4)
    return found


@torch.no_grad()
def start(network: nn.Module, tokenizer, *, alike: float = 0.7) -> None:
    """Point the words, and let every head begin as a look-up."""
    language, axes = network.model.language_model, directions()
    for word, named in meanings().items():
        ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            language.embed_tokens.weight[ids[0]] += sum(much * axes[BEGIN[g] + i] for g, i, much in named)
    for layer in language.layers:
        heads = layer.self_attn
        spread = heads.q_proj.weight.shape[1] ** -0.5
        heads.q_proj.weight.normal_(0, spread)
        heads.v_proj.weight.normal_(0, spread)
        other = spread * torch.randn_like(heads.k_proj.weight)
        heads.k_proj.weight.copy_(alike * heads.q_proj.weight + (1 - alike**2) ** 0.5 * other)
        heads.o_proj.weight.copy_(0.3 * heads.v_proj.weight.T)
