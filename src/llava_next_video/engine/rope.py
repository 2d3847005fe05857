"""The turns of positions, under as many scalings at once as requests ask for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Complex, Int
from torch import Tensor

from llava_next_video.errors import ConfigError
from llava_next_video.long_video import RopeScaling
from llava_next_video.model.rope import scaled_rotary

OWN = 0
"""The row of the checkpoint's own scaling."""


class Rope:
    """One row of frequencies for each scaling in use, in tables that stay where they are.

    So a step needs a row a token and no branches, whatever is mixed in it. A scaling that was not asked for
    longest makes room for a new one.

    Attributes:
        frequencies: Scalings x half the width of a head; the angle of a position is position times frequency.
        strengths: For each scaling the factor on cosine and sine (YaRN sharpens attention by it).
    """

    def __init__(
        self, rotary: Any, config: Any, *, head_width: int, scalings: int, device: torch.device
    ) -> None:
        own = rotary.inv_freq.detach().float()
        if len(own) * 2 != head_width:
            raise ConfigError(
                f"rope turns {2 * len(own)} of {head_width} features of a head; all were expected"
            )
        self._rotary = type(rotary)
        self._config = config
        self._rows: OrderedDict[RopeScaling, int] = OrderedDict()
        self.frequencies = torch.zeros(scalings + 1, len(own), device=device)
        self.strengths = torch.ones(scalings + 1, device=device)
        self._write(OWN, rotary)

    def rows(self, scalings: Sequence[RopeScaling | None]) -> list[int]:
        """The row of each scaling; there are never more in one step than there is room for."""
        for one in scalings:
            if one is not None and one in self._rows:
                self._rows.move_to_end(one)
        for one in scalings:
            if one is not None and one not in self._rows:
                full = len(self._rows) == len(self.strengths) - 1
                row = self._rows.popitem(last=False)[1] if full else len(self._rows) + 1
                self._rows[one] = row
                self._write(row, scaled_rotary(self._rotary, self._config, one))
        return [OWN if one is None else self._rows[one] for one in scalings]

    def turns(
        self, positions: Int[Tensor, " tokens"], rows: Int[Tensor, " tokens"]
    ) -> Complex[Tensor, "tokens half"]:
        """The turn of each position under the scaling in its row."""
        angles = positions[:, None].float() * self.frequencies.index_select(0, rows)
        return torch.polar(self.strengths.index_select(0, rows)[:, None].expand_as(angles), angles)

    def _write(self, row: int, rotary: Any) -> None:
        self.frequencies[row] = rotary.inv_freq.detach().float()
        self.strengths[row] = float(rotary.attention_scaling)


def longest_context(rotary: Any, context: int) -> int:
    """How many of `context` positions have one turn each, whatever the length of the request.

    The frequencies of a checkpoint's own dynamic and longrope change beyond the trained length, which pages
    cannot follow.
    """
    if rotary.rope_type == "dynamic":
        return min(context, int(rotary.original_max_seq_len))
    if rotary.rope_type == "longrope":
        return min(context, int(rotary.config.rope_parameters["original_max_position_embeddings"]))
    return context
