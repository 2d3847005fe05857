"""Height and width, in that order, everywhere."""

from typing import NamedTuple


class Size(NamedTuple):
    """A height and a width in the unit its owner names: pixels, tiles or patches.

    >>> Size(height=336, width=672).area
    225792
    """

    height: int
    width: int

    @property
    def area(self) -> int:
        """Height times width."""
        return self.height * self.width
