"""How attention is cut into programs, and what its kernels are launched with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

LOG2_E = 1.4426950408889634
_MOST_SPLITS = 32
_FEW_SPLITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How the split kernel is launched: what to turn when a card is slower than its memory.

    Attributes:
        programs: How many of them keep the card busy; contexts are split until there are so many.
        at_once: How many of them run at once; few bundles are split until these are enough.
        tokens: Keys and values read at once.
        warps, stages: Threads of a program in 32s, and how many reads are on their way at once.
        least: Contexts of no more tokens than that are not cut; only where a program can see that.
    """

    programs: int
    at_once: int = 0
    tokens: int = 64
    warps: int = 4
    stages: int = 3
    least: int = 128

    @classmethod
    def on(cls, device: torch.device, dtype: torch.dtype) -> Launch:
        """Sixteen programs for each multiprocessor, so that the last ones are short: four run at once.

        Numbers twice as wide are read half as many at once.
        """
        if device.type != "cuda":
            return cls(programs=8, tokens=32)
        count = torch.cuda.get_device_properties(device).multi_processor_count
        launch = cls(programs=16 * count, at_once=4 * count)
        return launch if dtype.itemsize < 4 else replace(launch, tokens=32, stages=2)

    @classmethod
    def for_few(cls, device: torch.device, dtype: torch.dtype, *, alone: bool) -> Launch:
        """For a few rows that generate apart, whose programs hold what they read next in registers.

        A query `alone` with its keys is multiplied number by number, which more threads do faster; 64 tokens
        at once were 2 % of a step of one request of a 7B better than 32 (docs/log.md). Several queries of one
        key take 32, so that registers suffice.
        """
        launch = cls.on(device, dtype)
        return replace(launch, warps=8) if alone else replace(launch, tokens=32)

    def splits(self, bundles: int, key_value_heads: int) -> int:
        """Into how many pieces to cut what each bundle looks at; the same whatever its length.

        Few bundles are cut into as many as run at once: all of them begin and end together.

        >>> launch = Launch(programs=2112, at_once=528)
        >>> [launch.splits(bundles, key_value_heads=32) for bundles in (1, 8, 64)]
        [16, 9, 2]
        """
        if not bundles:
            return 0
        pieces = self.at_once // (bundles * key_value_heads)
        if pieces < _FEW_SPLITS:
            pieces = -(-self.programs // (bundles * key_value_heads))
        return min(pieces, _MOST_SPLITS)
