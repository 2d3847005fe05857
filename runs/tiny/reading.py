"""First stand-in for a pretrained language model: it reads about scenes that are told as facts.

The real system starts from Vicuna. Here all layers learn words and look-ups: a few tokens of facts take the
place of a clip from the fourth layer on, and questions are asked about them. No pixel is drawn.
"""

import argparse
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
from batches import frame_times
from clips import PICTURE_SIZES, Seen, random_clips, random_pictures
from facts import SHAPE_FACTS, facts_of
from forward import code, read
from network import CELLS, FRAMES, GRID, make_network
from optimizer import MuonAdamW, schedule
from score import table
from start import start
from text import UNKNOWN, Words, answer_loss, choose, make_tokenizer, pack, save
from torch import Tensor

from llava_next_video.geometry import unpadded
from llava_next_video.size import Size
from llava_next_video.world.questions import ask

LAST_FRAME = (FRAMES - 1) * CELLS**2


def told(rng: random.Random, count: int, pictures: bool, weights, alike: float) -> Seen:
    """Scenes of which nothing is drawn."""
    if pictures:
        size = Size(*rng.choice(PICTURE_SIZES))
        columns = unpadded(Size(2 * GRID, 2 * GRID), size).width
        scenes = random_pictures(rng, count, weights, alike)
        return Seen(scenes=scenes, times=[[0.0]] * count, features=torch.zeros(0), columns=columns, size=size)
    scenes = random_clips(rng, count, weights, alike)
    return Seen(scenes=scenes, times=[frame_times(rng, FRAMES) for _ in scenes], features=torch.zeros(0))


def memory(facts: Tensor, rng: random.Random, pictures: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Some tokens of each scene (facts, places, which are no padding): things early and late, and ground."""
    first = GRID**2 if pictures else LAST_FRAME
    chosen = []
    for holds in (facts[..., SHAPE_FACTS].sum(-1) > 0).tolist():
        late = [k for k in range(first, len(holds)) if holds[k]]
        early = [k for k in range(first) if holds[k]]
        ground = [k for k in range(first, len(holds)) if not holds[k]]
        picked = ((late, 9), (early, 4), (ground, 3))
        chosen.append(
            sorted(k for tokens, most in picked for k in rng.sample(tokens, min(len(tokens), most)))
        )
    longest = max(map(len, chosen))
    places = torch.tensor([[*row, *([0] * (longest - len(row)))] for row in chosen])
    there = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in chosen])
    return facts.gather(1, places[..., None].expand(-1, -1, facts.shape[-1])), places, there


@torch.no_grad()
def score(network, words: Words, looks: list[Seen]) -> dict[tuple[str, str], list[bool]]:
    """As `score.score`, from facts."""
    marks: dict[tuple[str, str], list[bool]] = defaultdict(list)
    rng = random.Random("score")
    for seen in looks:
        facts = facts_of(seen)
        some, places, there = memory(facts, rng, bool(seen.columns))
        asked = [[[question] for question in ask(scene, rng)] for scene in seen.scenes]
        text = pack(asked, words, len(words.head) + facts.shape[1])
        spoken = text.labels != UNKNOWN
        right = torch.zeros_like(spoken)
        right[spoken] = (
            read(network, words, code(some), places, there, text).argmax(-1) == text.labels[spoken]
        )
        for row, (scene, dialogues) in enumerate(zip(seen.scenes, asked, strict=True)):
            for number, (question,) in enumerate(dialogues, 1):
                said = spoken[row] & (text.dialogues[row] == number)
                group = f"{'image' if scene.still else 'video'} {len(scene.things)}"
                marks[group, question.family].append(bool(right[row][said].all()))
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    out = Path(__file__).parent / "out"
    parser.add_argument("--minutes", type=float, required=True, help="minutes of processor time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--room", type=int, default=128, help="text tokens behind each scene")
    parser.add_argument("--pictures", type=float, default=0.12, help="share of batches with pictures")
    parser.add_argument("--things", type=float, nargs=4, default=(2, 30, 42, 26), help="weights of 0 1 2 3")
    parser.add_argument("--alike", type=float, default=0.6, help="share of scenes whose things resemble")
    parser.add_argument("--focus", type=float, default=0.0, help="share of scenes asked for late look-ups")
    parser.add_argument("--lr", type=float, default=0.006)
    parser.add_argument("--cool", type=float, default=0.4, help="share of the time in which the rate falls")
    parser.add_argument("--start", type=Path, help="go on from this state")
    parser.add_argument("--out", type=Path, default=out / "reading.pt")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(given.seed)
    words = Words(make_tokenizer())
    network = make_network(words.tokenizer, given.seed)
    if given.start:
        network.load_state_dict(torch.load(given.start))
    else:
        start(network, words.tokenizer)
    network.model.vision_tower.requires_grad_(False)
    network.model.multi_modal_projector.requires_grad_(False)
    network.model.image_newline.requires_grad_(False)
    optimizer = MuonAdamW(network, muon_lr=given.lr, adam_lr=given.lr / 4)
    rng, check = random.Random(f"reading {given.seed} {given.start}"), random.Random("check")
    looks = [told(check, 16, pictures, (2, 12, 12, 3), 0.0) for pictures in (False,) * 6 + (True,) * 2]
    begin, step, last, losses, asked = time.process_time(), 0, 0.0, [], 0
    while (done := (time.process_time() - begin) / 60 / given.minutes) < 1:
        pictures = rng.random() < given.pictures
        seen = told(rng, given.batch, pictures, given.things, given.alike)
        facts = facts_of(seen)
        some, places, there = memory(facts, rng, pictures)
        dialogues = [choose(scene, rng, words, given.room, given.focus) for scene in seen.scenes]
        text = pack(dialogues, words, len(words.head) + facts.shape[1])
        loss = answer_loss(read(network, words, code(some), places, there, text), text)
        loss.backward()
        optimizer.step(schedule(done, cool=given.cool))
        step += 1
        losses.append(loss.item())
        asked += sum(len(turns) for row in dialogues for turns in row)
        if step % 50 == 0:
            spent = time.process_time() - begin
            recent = sum(losses[-50:]) / 50
            print(f"{spent / 60:.1f} min step {step} loss {recent:.4f} {asked / spent:.0f} q/s", flush=True)
        if done - last > 0.2:
            last = done
            print(table(score(network, words, looks)), flush=True)
            save(network, given.out)
    save(network, given.out)
    print(f"DONE {step} steps, {asked} questions\n{table(score(network, words, looks))}", flush=True)


if __name__ == "__main__":
    main()
