"""How many visual tokens a medium becomes, and in what order.

Integers only: no pixels, no tensors. The processor counts placeholders with these functions and the model
packs features with them, so that the two sides cannot disagree.

An image is fitted into a canvas (the best of the pinpoints), padded, and cut into tiles; a squashed copy of
the whole image is the base tile and comes first. A tile has patches. The patches of the canvas that only
held padding are dropped, and each row that stays ends with a newline token. A video frame is one tile whose
patches are pooled. A large image may be shrunk to what a number of tiles would hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llava_next_video.errors import ConfigError
from llava_next_video.long_video import ClipLayout, SlowFast
from llava_next_video.long_video import NewlineMode as NewlineMode
from llava_next_video.size import Size

PoolMode = Literal["average", "max", "bilinear", "conv"]

_LITTLE = 1.1  # a grid whose sides are so much too long is not worth shrinking


def best_canvas(image: Size, pinpoints: Sequence[Size]) -> Size:
    """The pinpoint that keeps most pixels of the image, then wastes least; the first of equals.

    The order of the pinpoints decides for square images. The scaled sides are truncated, not rounded.

    >>> canvases = [Size(336, 672), Size(672, 336), Size(672, 672)]
    >>> best_canvas(Size(height=480, width=640), canvases)
    Size(height=672, width=672)
    >>> best_canvas(Size(height=336, width=336), canvases)
    Size(height=336, width=672)

    Raises:
        ConfigError: there are no pinpoints.

    Source: LLaVA-NeXT, `llava/mm_utils.py`, `select_best_resolution`, in (height, width) as in transformers,
    `image_processing_utils.py`.
    """
    _refuse_empty(image)
    if not pinpoints:
        raise ConfigError("image_grid_pinpoints is empty; give at least one (height, width)")
    best, best_kept, best_wasted = Size(*pinpoints[0]), -1, 0
    for pinpoint in pinpoints:
        canvas = Size(*pinpoint)
        scale = min(canvas.width / image.width, canvas.height / image.height)
        kept = min(int(image.width * scale) * int(image.height * scale), image.area)
        wasted = canvas.area - kept
        if kept > best_kept or (kept == best_kept and wasted < best_wasted):
            best, best_kept, best_wasted = canvas, kept, wasted
    return best


def fitted(image: Size, canvas: Size) -> Size:
    """Size of the image inside the canvas with its aspect kept: one side is full, the other is rounded up.

    >>> fitted(Size(height=480, width=640), Size(height=672, width=672))
    Size(height=504, width=672)

    Source: LLaVA-NeXT, `llava/mm_utils.py`, `resize_and_pad_image`.
    """
    _refuse_empty(image)
    scale_width, scale_height = canvas.width / image.width, canvas.height / image.height
    if scale_width < scale_height:
        return Size(min(math.ceil(image.height * scale_width), canvas.height), canvas.width)
    return Size(canvas.height, min(math.ceil(image.width * scale_height), canvas.width))


def unpadded(grid: Size, image: Size) -> Size:
    """Patches left after removing the rows or columns that only held padding.

    A wide image was padded above and below, so rows go; otherwise columns. As many go on one side as on the
    other, so an odd remainder keeps one. Nothing at all may be left of an extreme aspect.

    >>> unpadded(grid=Size(48, 48), image=Size(height=1000, width=500))
    Size(height=48, width=24)
    >>> unpadded(grid=Size(24, 72), image=Size(height=1, width=1000))
    Size(height=0, width=72)

    Source: LLaVA-NeXT, `llava/model/llava_arch.py`, `unpad_image`; transformers rounds to 7 digits before it
    truncates, so that 0.1 + 0.2 does not lose a row (huggingface/transformers pull request 34522).
    """
    _refuse_empty(image)
    if image.width / image.height > grid.width / grid.height:
        rows = int(round(image.height * (grid.width / image.width), 7))
        return Size(grid.height - 2 * ((grid.height - rows) // 2), grid.width)
    columns = int(round(image.width * (grid.height / image.height), 7))
    return Size(grid.height, grid.width - 2 * ((grid.width - columns) // 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayout:
    """How one image is cut and how its visual tokens are ordered: base tile, then rows with a newline each.

    Attributes:
        canvas: Pixels of the chosen pinpoint.
        tiles: Rows and columns of tiles on the canvas.
        grid: Patches of the whole canvas.
        kept: Patches of the canvas that saw the image.
        base: Patches of the base tile.
        shown: Rows and columns of visual tokens that the kept patches become; as many, unless a limit on
            tiles shrinks them.
    """

    canvas: Size
    tiles: Size
    grid: Size
    kept: Size
    base: Size
    shown: Size

    @property
    def tile_count(self) -> int:
        """Tiles that the vision tower sees, the base tile included."""
        return self.tiles.area + 1

    @property
    def tokens(self) -> int:
        """Visual tokens: base patches, the patches shown, and one newline a row."""
        return self.base.area + self.shown.height * (self.shown.width + 1)


def image_layout(
    image: Size, pinpoints: Sequence[Size], *, tile: int, patch: int, tile_limit: int | None = None
) -> ImageLayout:
    """The layout of an image of that many pixels, for square tiles and patches of those sides in pixels.

    With a `tile_limit`, the kept patches are shrunk to as many as that many tiles have.

    >>> points = [Size(336, 672), Size(672, 336), Size(672, 672), Size(1008, 336), Size(336, 1008)]
    >>> layout = image_layout(Size(height=720, width=1280), points, tile=336, patch=14)
    >>> layout.tile_count, layout.kept, layout.tokens
    (5, Size(height=28, width=48), 1948)

    Raises:
        ConfigError: a pinpoint is no whole number of tiles, or a tile is smaller than a patch.
    """
    canvas = best_canvas(image, pinpoints)
    if tile < patch or patch < 1:
        raise ConfigError(f"a tile of {tile} pixels holds no patch of {patch} pixels")
    if canvas.height % tile or canvas.width % tile:
        raise ConfigError(
            f"image_grid_pinpoints has ({canvas.height}, {canvas.width}), which is no whole number of tiles "
            f"of {tile} pixels; use multiples of {tile}"
        )
    side = tile // patch
    tiles = Size(canvas.height // tile, canvas.width // tile)
    grid = Size(tiles.height * side, tiles.width * side)
    kept = unpadded(grid, image)
    shown = kept if tile_limit is None else shrunk(kept, tile_limit * side * side)
    return ImageLayout(canvas=canvas, tiles=tiles, grid=grid, kept=kept, base=Size(side, side), shown=shown)


def shrunk(grid: Size, most: int) -> Size:
    """A grid of at most about so many patches with its aspect kept; one that is a little larger stays.

    >>> shrunk(Size(54, 54), most=1458), shrunk(Size(54, 54), most=2700)
    (Size(height=38, width=38), Size(height=54, width=54))

    Raises:
        ConfigError: not even one patch is allowed.

    Source: LLaVA-NeXT, `llava/model/llava_arch.py`, the branch for `anyres_max`.
    """
    if most < 1:
        raise ConfigError(f"image_tile_limit leaves {most} patches; it must be at least 1")
    times = math.sqrt(grid.area / most)
    if times <= _LITTLE:
        return grid
    return Size(int(grid.height // times), int(grid.width // times))


def pooled(grid: Size, stride: int, mode: PoolMode) -> Size:
    """Patches of a frame after pooling: windows that do not fill are dropped, but bilinear rounds up.

    >>> pooled(Size(27, 27), 2, "average"), pooled(Size(27, 27), 2, "bilinear")
    (Size(height=13, width=13), Size(height=14, width=14))

    Raises:
        ConfigError: the stride is below 1, or larger than the grid.

    Source: LLaVA-NeXT, `llava/model/llava_arch.py`, `get_2dPool`.
    """
    if stride < 1:
        raise ConfigError(f"spatial_pool_stride is {stride}; it must be at least 1")
    if mode == "bilinear":
        return Size(-(-grid.height // stride), -(-grid.width // stride))
    left = Size(grid.height // stride, grid.width // stride)
    if left.area == 0:
        raise ConfigError(
            f"spatial_pool_stride {stride} leaves nothing of a frame of {grid.height}x{grid.width} patches; "
            "use a smaller stride or larger frames"
        )
    return left


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLayout:
    """How the visual tokens of one clip are ordered: frame after frame, row after row, with newlines.

    Attributes:
        frames: Frames of the clip.
        grid: Rows and columns of visual tokens in a frame, after pooling; with slow-fast in a slow one.
        stride: Of that pooling.
        newline: Where newline tokens stand: nowhere, once at the very end (`one_token`), after each frame, or
            after each row of each frame (`grid`).
        every: Each so-many-th frame, from the first on, is slow; 1: all are.
        fast: Rows and columns in the frames between, which are pooled by twice the stride; None: there are
            none.
        frame_token: Whether another learned token ends each frame, behind its newlines.
    """

    frames: int
    grid: Size
    stride: int
    newline: NewlineMode
    every: int = 1
    fast: Size | None = None
    frame_token: bool = False

    @property
    def grids(self) -> tuple[Size, ...]:
        """Rows and columns of each frame."""
        fast = self.fast or self.grid
        return tuple(fast if frame % self.every else self.grid for frame in range(self.frames))

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the pooling of each frame."""
        return tuple(self.stride * (2 if frame % self.every else 1) for frame in range(self.frames))

    @property
    def patches(self) -> int:
        """Visual tokens that are pooled patches: all but the learned ones."""
        return sum(grid.area for grid in self.grids)

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a (slow) frame with its own newlines (that of `one_token` is no frame's)."""
        return self._tokens(self.grid)

    @property
    def tokens(self) -> int:
        """Visual tokens of the whole clip."""
        return sum(map(self._tokens, self.grids)) + (self.newline == "one_token")

    def _tokens(self, grid: Size) -> int:
        newlines = {"grid": grid.height, "frame": 1}.get(self.newline, 0)
        return grid.area + newlines + self.frame_token


def video_layout(
    frames: int,
    *,
    tile: int | Size,
    patch: int,
    stride: int,
    mode: PoolMode,
    newline: NewlineMode,
    slow_fast: SlowFast | None = None,
    frame_token: bool = False,
    wish: ClipLayout | None = None,
) -> VideoLayout:
    """The layout of a clip whose frames have `tile` pixels (one number: a square) as the tower sees them.

    A wish comes before `newline` and `slow_fast`, which are the checkpoint's.

    >>> video_layout(8, tile=336, patch=14, stride=2, mode="average", newline="no_token").tokens
    1152
    >>> video_layout(32, tile=384, patch=14, stride=2, mode="bilinear", newline="grid").tokens_per_frame
    210
    >>> few = SlowFast(every=4)  # 16 frames of 144 tokens, 48 of 36
    >>> video_layout(
    ...     64, tile=336, patch=14, stride=2, mode="average", newline="no_token", slow_fast=few
    ... ).tokens
    4032

    Raises:
        ConfigError: a frame is smaller than a patch, the stride leaves nothing of it, or twice the stride of
            slow frames does not divide it.
    """
    frame = Size(tile, tile) if isinstance(tile, int) else tile
    if frames < 1:
        raise ValueError(f"a clip has at least one frame, got {frames}")
    if patch < 1 or min(frame) < patch:
        raise ConfigError(f"a frame of {frame.height}x{frame.width} pixels holds no patch of {patch} pixels")
    patches = Size(frame.height // patch, frame.width // patch)
    wish = wish or ClipLayout()
    newline, slow_fast = wish.newline or newline, wish.slow_fast or slow_fast
    if slow_fast is None:
        grid = pooled(patches, stride, mode)
        return VideoLayout(frames=frames, grid=grid, stride=stride, newline=newline, frame_token=frame_token)
    slow = slow_fast.stride or stride
    _refuse_indivisible(patches, slow, mode)
    return VideoLayout(
        frames=frames,
        grid=pooled(patches, slow, mode),
        stride=slow,
        newline=newline,
        every=slow_fast.every,
        fast=pooled(patches, 2 * slow, mode),
        frame_token=frame_token,
    )


def _refuse_indivisible(patches: Size, slow: int, mode: PoolMode) -> None:
    if mode == "conv":
        raise ConfigError("slow-fast pools by two strides, and 'conv' pooling was learnt for one of them")
    if mode != "bilinear" and (patches.height % (2 * slow) or patches.width % (2 * slow)):
        raise ConfigError(
            f"slow-fast pools by {slow} and {2 * slow}, and {2 * slow} does not divide a frame of "
            f"{patches.height}x{patches.width} patches; use another stride"
        )


def _refuse_empty(image: Size) -> None:
    if min(image) < 1:
        raise ValueError(f"an image has at least one pixel, got {image}")
