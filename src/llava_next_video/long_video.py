"""What a question may choose, so that a long clip fits.

Plain records: `model` and `engine` turn positions by them, `geometry` counts visual tokens by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

from llava_next_video.errors import ConfigError

RopeKind = Literal["auto", "linear", "dynamic", "yarn"]
NewlineMode = Literal["no_token", "one_token", "frame", "grid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How far the positions of one prompt are stretched beyond those that the model was trained on.

    Attributes:
        kind: `linear` divides positions by the factor, as LLaVA-NeXT-Video does. `dynamic` (NTK) raises the
            base of the frequencies instead, so that near tokens keep their distance; once for the whole
            prompt and answer, never while they grow. `yarn` divides the slow frequencies only, and sharpens
            attention. `auto`: the checkpoint's own kind, and `yarn` for one that has none.
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
        if self.factor is None:
            return
        if not _is_number(self.factor) or not 1 <= self.factor < math.inf:
            raise ConfigError(
                f"rope factor {self.factor!r} is below 1, or no number; it stretches the context, e.g. 2.5"
            )


def read_rope(wish: object) -> RopeScaling | None:
    """What a caller may give as a scaling: a record, a factor (linear), `auto`, or None for the checkpoint's.

    >>> read_rope(2), read_rope("auto")
    (RopeScaling(kind='linear', factor=2.0), RopeScaling(kind='auto', factor=None))

    Raises:
        ConfigError: Anything else.
    """
    if wish is None or isinstance(wish, RopeScaling):
        return wish
    if wish == "auto":
        return RopeScaling(kind="auto")
    if _is_number(wish):
        return RopeScaling(factor=float(cast(float, wish)))
    raise ConfigError(f"rope is {wish!r}; expected a factor such as 2.0, 'auto', a RopeScaling, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowFast:
    """Every `every`-th frame, from the first on, is pooled by `stride`, the frames between by twice that.

    Attributes:
        every: At least 2; the original has 10.
        stride: Of the slow frames; None: the checkpoint's.

    Raises:
        ConfigError: Either is out of range.

    Source: LLaVA-NeXT, `llava/model/llava_arch.py`, `add_faster_video` and `faster_token_stride`.
    """

    every: int = 10
    stride: int | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.every) or self.every < 2:
            raise ConfigError(
                f"slow-fast with every={self.every!r} leaves no fast frames; give a whole number, 2 or more"
            )
        if self.stride is not None and (not _is_whole(self.stride) or self.stride < 1):
            raise ConfigError(
                f"slow-fast has stride {self.stride!r}; slow frames are pooled by a whole number, 1 or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLayout:
    """How the frames of a clip become visual tokens, in place of what the checkpoint does.

    Attributes:
        slow_fast: Fewer tokens for most frames; None: as the checkpoint does.
        newline: Where newline tokens stand: `no_token`, `one_token` (at the very end), `frame` (after each)
            or `grid` (after each row of each); None: as the checkpoint does.

    Raises:
        ConfigError: An unknown newline mode.
    """

    slow_fast: SlowFast | None = None
    newline: NewlineMode | None = None

    def __post_init__(self) -> None:
        if self.newline is not None and self.newline not in get_args(NewlineMode):
            raise ConfigError(f"unknown newline {self.newline!r}; known: {', '.join(get_args(NewlineMode))}")
        if self.slow_fast is not None and not isinstance(self.slow_fast, SlowFast):
            raise ConfigError(f"slow_fast is {self.slow_fast!r}; expected SlowFast(every=10), or None")


def read_layout(wish: object) -> ClipLayout | None:
    """What a caller may give as a layout: a record, or None for the checkpoint's.

    Raises:
        ConfigError: Anything else.
    """
    if wish is None or isinstance(wish, ClipLayout):
        return wish
    raise ConfigError(
        f"layout is {wish!r}; expected a ClipLayout such as ClipLayout(newline='frame') or "
        "ClipLayout(slow_fast=SlowFast(every=10)), or None"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
