"""Stand-in for a pretrained vision tower: renderer labels for every patch and every pooled cell.

The real system starts from CLIP. Here the tower learns to say, at each place, which colour and shape jointly,
where its middle is, how large it is and which fine pattern it has. The heads are thrown away.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from batches import COLOUR_NAMES, KINDS, tower_batch
from network import CELLS, VISION, make_network, normalised
from optimizer import MuonAdamW, schedule
from text import make_tokenizer, save
from torch import nn
from torch.nn import functional

from llava_next_video.world.scene import SHAPES

SPLIT = (KINDS, len(COLOUR_NAMES) + 1, len(SHAPES) + 1, 5, 4)


class Dense(nn.Module):
    """The tower with a head for its patches and a head for its pooled cells."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.patch_head = nn.Linear(VISION, sum(SPLIT))
        self.cell_head = nn.Linear(VISION, sum(SPLIT))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        patches = self.tower(pixels).last_hidden_state[:, 1:]
        grid = patches.unflatten(1, (2 * CELLS, 2 * CELLS)).movedim(-1, 1)
        cells = functional.avg_pool2d(grid, 2).movedim(1, -1)
        return self.patch_head(patches), self.cell_head(cells.flatten(1, 2))


def judge(said: torch.Tensor, truth: torch.Tensor, fine: int) -> tuple[torch.Tensor, list[float]]:
    """Loss, and the shares that are right: things, colours, shapes, empty places, patterns; offset error."""
    truth = truth.flatten(1, 2)
    kind, here = truth[..., 0].long(), truth[..., 0] > 0
    # The parts are learnt long before their conjunction.
    colour = torch.where(here, (kind - 1) // len(SHAPES) + 1, 0)
    shape = torch.where(here, (kind - 1) % len(SHAPES) + 1, 0)
    kinds, colours, shapes, offsets, textures = said.split(SPLIT, -1)
    loss = torch.zeros(())
    for logits, wanted in ((kinds, kind), (colours, colour), (shapes, shape)):
        loss = loss + 0.5 * functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        # Things are few: they count once more for themselves.
        loss = loss + 0.3 * functional.cross_entropy(logits[here], wanted[here])
    offset = (offsets[here] - truth[here][:, [1, 2, 3, 5, 6]]).square().mean()
    textured = here.clone()
    textured[:-fine] = False
    texture, true_texture = textures[textured], truth[textured][:, 4].long()
    loss = loss + offset + 0.5 * functional.cross_entropy(texture, true_texture)
    right = kinds.argmax(-1) == kind
    shares = [
        *(right[here], colours.argmax(-1)[here] == colour[here], shapes.argmax(-1)[here] == shape[here]),
        *(right[~here], texture.argmax(-1) == true_texture),
    ]
    return loss, [*(share.float().mean().item() for share in shares), offset.item()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "tower.pt")
    parser.add_argument("--start", type=Path, help="go on from this tower")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rng, generator = random.Random(f"tower {given.seed}"), torch.Generator().manual_seed(given.seed)
    tower = make_network(make_tokenizer(), given.seed).model.vision_tower
    if given.start:
        tower.load_state_dict(torch.load(given.start))
    network = Dense(tower)
    optimizer = MuonAdamW(network, muon_lr=given.lr, adam_lr=given.lr / 5)
    begin, step = time.process_time(), 0
    while (done := (time.process_time() - begin) / 60 / given.minutes) < 1:
        pixels, patches, cells = tower_batch(rng, generator, given.batch)
        fine = len(pixels) - given.batch // 5 * 4
        patch_said, cell_said = network(normalised(pixels))
        patch_loss, patch_shares = judge(patch_said, patches, fine)
        cell_loss, cell_shares = judge(cell_said, cells, fine)
        (patch_loss + cell_loss).backward()
        optimizer.step(schedule(done, cool=0.5))
        step += 1
        if step % 200 == 0:
            save(tower, given.out)
        if step % 50 == 0:
            shares = " ".join(f"{value:.3f}" for value in (*patch_shares, *cell_shares))
            print(f"{done:.2f} step {step} loss {patch_loss:.3f} {cell_loss:.3f} {shares}", flush=True)
    save(tower, given.out)


if __name__ == "__main__":
    main()
