"""Stand-in for a pretrained language model: what became of the thing under each visual token.

The real system starts from Vicuna. Here the first half of the layers learn to follow things through time: at
each token of a thing, how far it has come, how it started, and (in the last frame) what it did. The heads are
thrown away.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from batches import KINDS, covered, kind_of
from clips import Seen, Source, embed
from network import CELLS, FRAMES, WIDTH, make_network
from optimizer import MuonAdamW, schedule
from torch import Tensor, nn
from torch.nn import functional

from llava_next_video.world.captions import does
from llava_next_video.world.scene import CARDINAL, COLOURS, HEADING

DOINGS = [
    *(f"moves {way}" for way in HEADING),
    *(f"moves {a}, then {b}" for a in CARDINAL for b in CARDINAL if HEADING[a][0] ** 2 != HEADING[b][0] ** 2),
    *(f"turns {colour}" for colour in COLOURS),
    *("stays still", "bounces", "grows", "shrinks", "appears", "disappears"),
]
DEPTH, HEAD_TOKENS, NUMBERS = 3, 4, 12


def stories(seen: Seen) -> tuple[Tensor, Tensor]:
    """Per visual token: kinds now, at first and of what has gone, doing (-1 unknown); and numbers."""
    classes = torch.zeros(len(seen.scenes), FRAMES, CELLS, CELLS, 4, dtype=torch.long)
    classes[..., 3] = -1
    numbers = torch.zeros(len(seen.scenes), FRAMES, CELLS, CELLS, NUMBERS)
    for b, scene in enumerate(seen.scenes):
        for thing in scene.things:
            states = [thing.at(moment) for moment in seen.times[b]]
            first = last = None
            far = [0.0, 0.0]
            doing = DOINGS.index(does(thing))
            for t, state in enumerate(states):
                if not state.visible:
                    if last is not None:
                        for j, i in covered(last.x, last.y, last.radius, scene.aspect, CELLS):
                            if not classes[b, t, j, i, 0]:
                                classes[b, t, j, i, 2] = kind_of(last.colour, thing.shape)
                                classes[b, t, j, i, 3] = doing
                    continue
                first = first or (state, t)
                start, back = first[0], states[max(t - 1, first[1])]
                far = [max(far[0], abs(state.x - start.x)), max(far[1], abs(state.y - start.y))]
                values = (
                    *(
                        (state.x - start.x) * 4,
                        (state.y - start.y) * 4,
                        (state.x - back.x) * 16,
                        (state.y - back.y) * 16,
                    ),
                    *(state.x * 3, state.y * 3, start.x * 3, start.y * 3, far[0] * 4, far[1] * 4),
                    *((state.radius / start.radius - 1) * 2, first[1] / 4),
                )
                row, column = min(int(state.y * CELLS), CELLS - 1), min(int(state.x * CELLS), CELLS - 1)
                places = {(row, column), *covered(state.x, state.y, state.radius * 0.8, scene.aspect, CELLS)}
                entry = (kind_of(state.colour, thing.shape), kind_of(start.colour, thing.shape), 0)
                for j, i in places:
                    classes[b, t, j, i] = torch.tensor((*entry, doing if t == FRAMES - 1 else -1))
                    numbers[b, t, j, i] = torch.tensor(values)
                last = state
    return classes.flatten(1, 3), numbers.flatten(1, 3)


class Teller(nn.Module):
    """The head that tells the story of each visual token."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * KINDS + len(DOINGS) + NUMBERS)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(self.norm(hidden))


class Follower(nn.Module):
    """Projector and the first layers, with a head that tells the story of each token."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        language = network.model.language_model
        self.projector, self.layers = network.model.multi_modal_projector, language.layers[:DEPTH]
        self.teller = Teller()
        self.start = nn.Parameter(torch.randn(1, HEAD_TOKENS, WIDTH) * 0.02)
        self.__dict__["network"] = network

    def forward(self, seen: Seen) -> Tensor:
        visual = embed(self.network, seen)
        hidden = torch.cat([self.start.expand(len(visual), -1, -1), visual], 1)
        angles = self.network.model.language_model.rotary_emb(hidden, torch.arange(hidden.shape[1])[None])
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=angles)
        return self.teller(hidden[:, HEAD_TOKENS:])


def judge(said: Tensor, classes: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, float]:
    """Loss, unexplained variance of the numbers, share of doings that are right."""
    kinds = said[..., : 3 * KINDS].unflatten(-1, (3, KINDS))
    doings, guessed = said[..., 3 * KINDS : -NUMBERS], said[..., -NUMBERS:]
    loss = 0.2 * functional.cross_entropy(kinds.flatten(0, 2), classes[..., :3].flatten())
    here, told, gone = classes[..., 0] > 0, classes[..., 3] >= 0, classes[..., 2] > 0
    loss = loss + 0.2 * functional.cross_entropy(
        kinds[here][:, :2].flatten(0, 1), classes[here][:, :2].flatten()
    )
    if gone.any():
        loss = loss + 0.1 * functional.cross_entropy(kinds[gone][:, 2], classes[gone][:, 2])
    loss = loss + 0.5 * functional.cross_entropy(doings[told], classes[told][:, 3])
    errors = (guessed[here] - numbers[here]).square().mean(0)
    right = (doings[told].argmax(-1) == classes[told][:, 3]).float().mean()
    return loss + errors.mean() * 2, errors.detach() / numbers[here].var(0), right.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    out = Path(__file__).parent / "out"
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tower", type=Path, default=out / "tower.pt")
    parser.add_argument("--out", type=Path, default=out / "language.pt")
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = make_network(512, 3, 4, given.seed)
    network.model.vision_tower.load_state_dict(torch.load(given.tower))
    network.model.vision_tower.requires_grad_(False)
    follower = Follower(network)
    optimizer = MuonAdamW(follower, muon_lr=0.008, adam_lr=2e-3)
    rng = random.Random(f"language {given.seed}")
    source = Source(
        network.model.vision_tower,
        rng,
        batch=given.batch,
        pictures=False,
        weights=(1, 40, 45, 14),
        reuse=3,
        keep=400,
    )
    begin, step = time.process_time(), 0
    while (done := (time.process_time() - begin) / 60 / given.minutes) < 1:
        seen = source.next()
        classes, numbers = stories(seen)
        loss, unexplained, right = judge(follower(seen), classes, numbers)
        loss.backward()
        optimizer.step(schedule(done))
        step += 1
        if step % 40 == 0:
            shares = " ".join(f"{value:.2f}" for value in unexplained)
            print(
                f"{done:.2f} step {step} loss {loss.item():.3f} doing {right:.2f} unexplained {shares}",
                flush=True,
            )
    torch.save(
        {k: v for k, v in network.state_dict().items() if "embed_tokens" not in k and "lm_head" not in k},
        given.out,
    )


if __name__ == "__main__":
    main()
