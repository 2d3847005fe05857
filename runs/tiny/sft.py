"""`align` (projector only), then `sft` (projector and language model): questions about clips and pictures.

The tower stays frozen. Each batch looks at clips or at pictures; each clip answers some ten packed questions.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from clips import Source, embed, see
from language import DEPTH, Teller, judge, stories
from network import make_network
from optimizer import MuonAdamW, schedule
from score import score, table
from text import UNKNOWN, Words, choose, logits_of, make_tokenizer, pack
from torch import nn
from torch.nn import functional


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    out = Path(__file__).parent / "out"
    parser.add_argument("stage", choices=("align", "sft"))
    parser.add_argument("--minutes", type=float, required=True, help="minutes of processor time")
    parser.add_argument("--wall", type=float, default=1e9, help="minutes after which it ends anyway")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--room", type=int, default=128, help="text tokens behind each clip")
    parser.add_argument("--pictures", type=float, default=0.2, help="share of batches with pictures")
    parser.add_argument(
        "--things", type=float, nargs=4, default=(4, 46, 38, 12), help="weights of 0 1 2 3 things"
    )
    parser.add_argument("--lr", type=float, default=0.008)
    parser.add_argument("--cool", type=float, default=0.35, help="share of the time in which the rate falls")
    parser.add_argument("--start", type=Path, default=out / "language.pt")
    parser.add_argument("--out", type=Path, default=out / "sft.pt")
    parser.add_argument("--early", type=float, default=0.0, help="pace of the projector and the first layers")
    parser.add_argument("--story", type=float, default=0.0, help="weight of the stories of visual tokens")
    parser.add_argument("--late", type=Path, help="take embeddings and later layers from this state")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    words = Words(make_tokenizer())
    ids = words.tokenizer.convert_tokens_to_ids
    network = make_network(len(words.tokenizer), ids("<image>"), ids("<video>"), given.seed)
    left = network.load_state_dict(torch.load(given.start), strict=False)
    print("not in the file:", left.missing_keys, flush=True)
    if given.late:
        network.load_state_dict({k: v for k, v in torch.load(given.late).items() if is_late(k)}, strict=False)
    network.requires_grad_(given.stage == "sft")
    # Muon moves every matrix by the same amount, however little its gradient says: the young text loss would
    # wipe out what the first layers know about time within a few hundred steps.
    early = tuple(f"language_model.layers.{layer}." for layer in range(DEPTH))
    if given.stage == "sft" and not given.early:
        network.model.language_model.layers[:DEPTH].requires_grad_(False)
    network.model.multi_modal_projector.requires_grad_(given.stage == "align" or given.early > 0)
    network.model.image_newline.requires_grad_(True)
    tower = network.model.vision_tower.requires_grad_(False)
    teller, heard = Teller(), {}
    network.model.language_model.layers[DEPTH - 1].register_forward_hook(
        lambda _, __, out: heard.update(hidden=out[0] if isinstance(out, tuple) else out)
    )
    optimizer = MuonAdamW(
        nn.ModuleDict({"network": network, "teller_head": teller}),
        muon_lr=given.lr,
        adam_lr=given.lr / 4,
        slow=(*early, "projector"),
        slowness=given.early if given.stage == "sft" else 1.0,
    )
    rng = random.Random(f"{given.stage} {given.seed} {given.start}")
    sources = [
        Source(tower, rng, batch=given.batch, pictures=pictures, weights=given.things, reuse=3, keep=keep)
        for pictures, keep in ((False, 800), (True, 100))
    ]
    check = random.Random("check")
    dice = torch.Generator().manual_seed(1)
    looks = [see(tower, check, dice, 16, pictures, (2, 12, 12, 3)) for pictures in (False,) * 6 + (True,) * 2]
    begin, wall, step, last, losses, asked, told = time.process_time(), time.time(), 0, 0.0, [], 0, ""
    while (done := progress(begin, wall, given.minutes, given.wall)) < 1:
        seen = sources[rng.random() < given.pictures].next()
        visual = embed(network, seen)
        dialogues = [choose(scene, rng, words, given.room) for scene in seen.scenes]
        text = pack(dialogues, words, len(words.head) + visual.shape[1])
        loss = functional.cross_entropy(
            logits_of(network, words, visual, text), text.labels[text.labels != UNKNOWN]
        )
        total = loss
        if given.story and not seen.columns:
            hidden = heard["hidden"][:, len(words.head) : len(words.head) + visual.shape[1]]
            story, unexplained, right = judge(teller(hidden), *stories(seen))
            told = f"doing {right:.2f} moved {unexplained[:2].mean():.2f}"
            total = loss + given.story * story
        total.backward()
        optimizer.step(schedule(done, cool=given.cool))
        step += 1
        losses.append(loss.item())
        asked += sum(map(len, (turns for row in dialogues for turns in row)))
        if step % 50 == 0:
            spent = time.process_time() - begin
            recent = sum(losses[-50:]) / 50
            print(
                f"{spent / 60:.1f} min step {step} loss {recent:.4f} {asked / spent:.0f} questions/s {told}",
                flush=True,
            )
        if done - last > 0.16:
            last = done
            print(table(score(network, words, looks)), flush=True)
            save(network, given.out)
    save(network, given.out)
    print(f"DONE {step} steps, {asked} questions\n{table(score(network, words, looks))}", flush=True)


def is_late(name: str) -> bool:
    """Whether a weight belongs to the embeddings or to layers that the language stage has not touched."""
    return "language_model" in name and not any(f"layers.{layer}." in name for layer in range(DEPTH))


def progress(begin: float, wall: float, minutes: float, wall_minutes: float) -> float:
    """How much of the stage is done: by processor time, or by the clock if that runs out first."""
    return max((time.process_time() - begin) / 60 / minutes, (time.time() - wall) / 60 / wall_minutes)


def save(network, path: Path) -> None:
    """Write the weights so that a crash leaves the last good file."""
    part = path.with_suffix(".part")
    torch.save(network.state_dict(), part)
    part.replace(path)


if __name__ == "__main__":
    main()
