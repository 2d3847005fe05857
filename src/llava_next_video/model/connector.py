"""What LLaVA-NeXT-Video is: pool, project, pack, newlines.

Plain torch between a vision tower and a language model; every count and order comes from `geometry`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.activations import ACT2FN

from llava_next_video.geometry import ImageLayout, PoolMode, VideoLayout, pooled
from llava_next_video.size import Size

NEWLINE, FRAME_TOKEN = -1, -2
"""In an order of visual tokens: no patch, but a learned token."""


class Projector(nn.Module):
    """Two linear layers from the width of the vision tower to that of the language model."""

    def __init__(self, *, width: int, out_width: int, activation: str, bias: bool) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, out_width, bias=bias)
        self.act = ACT2FN[activation]
        self.linear_2 = nn.Linear(out_width, out_width, bias=bias)

    def forward(self, features: Float[Tensor, "*tiles width"]) -> Float[Tensor, "*tiles out_width"]:
        """Projected features."""
        return self.linear_2(self.act(self.linear_1(features)))


class Pooler(nn.Module):
    """Fewer patches a frame: windows of `stride` by `stride` patches become one."""

    def __init__(self, *, mode: PoolMode, stride: int, width: int, out_width: int) -> None:
        super().__init__()
        self.mode = mode
        self.stride = stride
        if mode == "conv":
            self.pool = nn.Conv2d(width, out_width, kernel_size=stride, stride=stride)

    def forward(
        self, features: Float[Tensor, "frames patches width"], grid: Size, stride: int | None = None
    ) -> Float[Tensor, "frames pooled out_width"]:
        """Pooled features of frames whose patches form that grid, by another stride than usual if need be.

        Source: LLaVA-NeXT, `llava/model/llava_arch.py`, `get_2dPool`.
        """
        stride = stride or self.stride
        planes = features.unflatten(1, tuple(grid)).permute(0, 3, 1, 2)
        match self.mode:
            case "average":
                planes = F.avg_pool2d(planes, stride)
            case "max":
                planes = F.max_pool2d(planes, stride)
            case "bilinear":
                size = tuple(pooled(grid, stride, "bilinear"))
                planes = F.interpolate(planes, size=size, mode="bilinear")
            case "conv":
                planes = self.pool(planes)
        return planes.flatten(2).transpose(1, 2)

    def rows(
        self, features: Float[Tensor, "frames patches width"], grid: Size, strides: Sequence[int]
    ) -> Float[Tensor, "pooled out_width"]:
        """Pooled features frame after frame, each frame pooled by its own stride."""
        if len(set(strides)) == 1:
            return self(features, grid, strides[0]).flatten(0, 1)
        frames: dict[int, Tensor] = {}
        for stride in set(strides):
            where = [frame for frame, one in enumerate(strides) if one == stride]
            frames |= dict(zip(where, self(features[where], grid, stride), strict=True))
        return torch.cat([frames[frame] for frame in range(len(strides))])


def pack_images(
    features: Float[Tensor, "tiles patches width"],
    layouts: Sequence[ImageLayout],
    newline: Float[Tensor, " width"],
) -> list[Float[Tensor, "tokens width"]]:
    """Visual tokens of each image: base tile, then the kept rows of the canvas, each with a newline.

    Args:
        features: All tiles of all images, base tile first, as the layouts count them.
        layouts: One per image.
        newline: The learned newline token.
    """
    if any(layout.shown != layout.kept for layout in layouts):
        each = features.split([layout.tile_count for layout in layouts])
        return [
            _shrunk_image(tiles, layout, newline)
            if layout.shown != layout.kept
            else pack_images(tiles, [layout], newline)[0]
            for tiles, layout in zip(each, layouts, strict=True)
        ]
    patches = features.shape[1]
    orders, tiles = [], 0
    for layout in layouts:
        order = image_order(layout)
        orders.append(torch.where(order < 0, order, order + tiles * patches))
        tiles += layout.tile_count
    order = torch.cat(orders).to(features.device, non_blocking=True)
    packed = features.flatten(0, 1).index_select(0, order.clamp(min=0))
    # Masked, not one more row to select from: the gradient of the newline is then one plain sum.
    packed = torch.where((order < 0)[:, None], newline.to(packed), packed)
    return list(packed.split([layout.tokens for layout in layouts]))


def image_order(layout: ImageLayout) -> Int[Tensor, " tokens"]:
    """For each visual token of an image its patch among the patches of its tiles, or `NEWLINE`.

    >>> from llava_next_video.geometry import image_layout
    >>> wide = image_layout(Size(height=2, width=4), [Size(2, 4)], tile=2, patch=1)
    >>> image_order(wide).tolist()  # base tile 0-3, then a row of two tiles
    [0, 1, 2, 3, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]
    """
    side, kept, grid = layout.base.height, layout.kept, layout.grid
    rows = torch.arange(kept.height)[:, None] + (grid.height - kept.height) // 2
    columns = torch.arange(kept.width)[None, :] + (grid.width - kept.width) // 2
    tile = 1 + (rows // side) * layout.tiles.width + columns // side
    patches = tile * layout.base.area + (rows % side) * side + columns % side
    lines = torch.cat([patches, patches.new_full((kept.height, 1), -1)], dim=1)
    return torch.cat([torch.arange(layout.base.area), lines.flatten()])


def _shrunk_image(
    features: Float[Tensor, "tiles patches width"], layout: ImageLayout, newline: Float[Tensor, " width"]
) -> Float[Tensor, "tokens width"]:
    """Visual tokens of an image whose kept patches are too many: interpolated, then a newline a row.

    Source: LLaVA-NeXT, `llava/model/llava_arch.py`, the branch for `anyres_max`.
    """
    order = image_order(layout)[layout.base.area :].view(layout.kept.height, -1)[:, :-1]
    rows = features.flatten(0, 1)[order.to(features.device)]
    planes = F.interpolate(rows.permute(2, 0, 1)[None], size=tuple(layout.shown), mode="bilinear")[0]
    lines = planes.permute(1, 2, 0)
    lines = torch.cat([lines, newline.to(lines).expand(len(lines), 1, -1)], dim=1)
    return torch.cat([features[0], lines.flatten(0, 1)])


def lay_out_clips(
    rows: Float[Tensor, "patches width"],
    layouts: Sequence[VideoLayout],
    newline: Float[Tensor, " width"],
    frame_token: Float[Tensor, " width"] | None = None,
) -> list[Float[Tensor, "tokens width"]]:
    """Visual tokens of each clip: frame after frame, with learned tokens where the layouts want them.

    Args:
        rows: Pooled and projected patches of all frames of all clips.
        layouts: One per clip.
        newline: The learned newline token.
        frame_token: The learned token at the end of each frame, for layouts that have one.
    """
    if all(layout.tokens == layout.patches for layout in layouts):
        return list(rows.split([layout.patches for layout in layouts]))
    orders, start = [], 0
    for layout in layouts:
        order = clip_order(layout)
        orders.append(torch.where(order < 0, order, order + start))
        start += layout.patches
    order = torch.cat(orders).to(rows.device, non_blocking=True)
    laid = rows.index_select(0, order.clamp(min=0))
    laid = torch.where((order == NEWLINE)[:, None], newline.to(rows), laid)
    if frame_token is not None:
        laid = torch.where((order == FRAME_TOKEN)[:, None], frame_token.to(rows), laid)
    return list(laid.split([layout.tokens for layout in layouts]))


def clip_order(layout: VideoLayout) -> Int[Tensor, " tokens"]:
    """For each visual token of a clip its row among the pooled patches of its frames, or a learned token.

    >>> from llava_next_video.geometry import video_layout
    >>> small = video_layout(2, tile=2, patch=1, stride=1, mode="average", newline="grid")
    >>> clip_order(small).tolist()
    [0, 1, -1, 2, 3, -1, 4, 5, -1, 6, 7, -1]

    Source: LLaVA-NeXT, `llava/model/llava_arch.py`, `add_token_per_grid`, `add_token_per_frame` and what
    `prepare_inputs_labels_for_multimodal` does when `add_faster_video` is set.
    """
    parts, start = [], 0
    for grid in layout.grids:
        lines = torch.arange(start, start + grid.area).view(tuple(grid))
        if layout.newline == "grid":
            lines = F.pad(lines, (0, 1), value=NEWLINE)
        ends = [NEWLINE] * (layout.newline == "frame") + [FRAME_TOKEN] * layout.frame_token
        parts += [lines.flatten(), lines.new_tensor(ends)]
        start += grid.area
    parts.append(torch.full((int(layout.newline == "one_token"),), NEWLINE))
    return torch.cat(parts)


def place(
    embeddings: Float[Tensor, "batch length width"],
    where: Bool[Tensor, "batch length"],
    tokens: Float[Tensor, "tokens width"],
) -> Float[Tensor, "batch length width"]:
    """Embeddings with visual tokens in the marked places, filled in reading order."""
    return embeddings.masked_scatter(where[..., None], tokens)
