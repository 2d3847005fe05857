"""What a question may choose, so that a long clip fits.

Plain records: `model` and `engine` turn positions by them, `geometry` counts by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from llava_next_video.errors import ConfigError

RopeKind = Literal["linear", "dynamic", "yarn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How far the positions of one prompt are stretched beyond those that the model was trained on.

    Attributes:
        kind: `linear` divides positions by the factor, as LLaVA-NeXT-Video does. `dynamic` (NTK) raises the
            base of the frequencies instead, so that near tokens keep their distance; once for the whole
            prompt and answer, never while they grow. `yarn` divides the slow frequencies only, and sharpens
            attention.
        factor: Times the trained positions; None: the least, in halves, in which prompt and answer fit, and
            the checkpoint's own scaling where they fit that.

    Raises:
        ConfigError: An unknown kind, or a factor that does not stretch.
    """

    kind: RopeKind = "linear"
    factor: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(RopeKind):
            raise ConfigError(f"unknown rope scaling {self.kind!r}; known: {', '.join(get_args(RopeKind))}")
        if self.factor is not None and not 1 <= self.factor < math.inf:
            raise ConfigError(
                f"rope factor {self.factor} is below 1, or no number; it stretches the context, e.g. 2.5"
            )


def read_rope(wish: object) -> RopeScaling | None:
    """What a caller may give as a scaling: a record, a factor (linear), `auto`, or None for the checkpoint's.

    >>> read_rope(2), read_rope("auto").factor
    (RopeScaling(kind='linear', factor=2.0), None)

    Raises:
        ConfigError: Anything else.
    """
    if wish is None or isinstance(wish, RopeScaling):
        return wish
    if wish == "auto":
        return RopeScaling()
    if isinstance(wish, int | float) and not isinstance(wish, bool):
        return RopeScaling(factor=float(wish))
    raise ConfigError(f"rope is {wish!r}; expected a factor such as 2.0, 'auto', a RopeScaling, or None")
