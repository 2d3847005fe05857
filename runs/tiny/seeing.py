"""Second stand-in for a pretrained language model: it finds in frames what it read about.

The first layers learn to hold, at each visual token, the facts of the thing under it (`facts.py`): first
by themselves, while reading goes on beside, then with the questions asked about clips in which a falling
share is told the facts. The real system needs none of this: it starts from networks that have seen the world.
"""

import argparse
import random
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
from clips import Seen, Source, embed, see
from facts import BEGIN, EXCLUSIVE, GROUPS, SHAPE_FACTS, STRENGTH, directions, facts_of
from forward import DEPTH, code, look, read
from network import make_network
from optimizer import MuonAdamW, schedule
from reading import memory, told
from score import score, table
from text import Words, answer_loss, choose, make_tokenizer, pack, save
from torch import Tensor
from torch.nn import functional

NUMBERS = slice(BEGIN["numbers"], BEGIN["numbers"] + GROUPS["numbers"])


def first_layers(network, words: Words, visual: Tensor) -> Tensor:
    """The visual tokens after the first layers, with no text behind them."""
    language = network.model.language_model
    head = language.embed_tokens(torch.tensor(words.head)).expand(len(visual), -1, -1)
    hidden = torch.cat([head, visual], 1)
    length = hidden.shape[1]
    mask = torch.ones(length, length, dtype=torch.bool).tril().expand(len(visual), 1, -1, -1)
    angles = language.rotary_emb(hidden, torch.arange(length).expand(len(visual), -1))
    for layer in language.layers[:DEPTH]:
        hidden = layer(hidden, attention_mask=mask, position_embeddings=angles)
    return hidden[:, head.shape[1] :]


def fact_loss(hidden: Tensor, facts: Tensor) -> tuple[Tensor, dict[str, float]]:
    """How far tokens are from the code of their facts, and which share of each group can be read off."""
    here = facts[..., SHAPE_FACTS].sum(-1) > 0
    error = (hidden - code(facts)).square().sum(-1) / STRENGTH**2
    found = hidden @ directions().T / STRENGTH
    off = (found - facts)[here][:, NUMBERS].square().mean()
    loss, shares = 0.15 * error.mean() + 0.1 * error[here].mean() + 1.5 * off, {}
    for group in EXCLUSIVE:
        part = slice(BEGIN[group], BEGIN[group] + GROUPS[group])
        known = facts[..., part].sum(-1) > 0
        if known.any():
            logits, truth = 5 * found[known][:, part], facts[known][:, part].argmax(-1)
            # What a thing does is one of 38, and only the last frame knows.
            weight = 0.6 if group == "doing" else 0.12
            loss = loss + weight * functional.cross_entropy(logits, truth)
            shares[group] = (logits.argmax(-1) == truth).float().mean().item()
    return loss, shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    out = Path(__file__).parent / "out"
    parser.add_argument("--minutes", type=float, required=True, help="minutes of processor time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--room", type=int, default=128, help="text tokens behind each clip")
    parser.add_argument("--pictures", type=float, default=0.12, help="share of batches with pictures")
    parser.add_argument("--things", type=float, nargs=4, default=(2, 22, 46, 30), help="weights of 0 1 2 3")
    parser.add_argument("--alike", type=float, default=0.5, help="share of scenes whose things resemble")
    parser.add_argument("--focus", type=float, default=0.4, help="share of scenes asked for late look-ups")
    parser.add_argument("--apart", type=float, default=0.3, help="share of the time before both are joined")
    parser.add_argument(
        "--untold", type=float, default=0.6, help="share of the time after which nothing is told"
    )
    parser.add_argument("--lr", type=float, default=0.006)
    parser.add_argument("--cool", type=float, default=0.65, help="share of the time in which the rate falls")
    parser.add_argument("--tower", type=Path, default=out / "tower.pt")
    parser.add_argument("--start", type=Path, default=out / "reading.pt")
    parser.add_argument("--out", type=Path, default=out / "seeing.pt")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    words = Words(make_tokenizer())
    network = make_network(words.tokenizer, given.seed)
    network.load_state_dict(torch.load(given.start))
    tower = network.model.vision_tower
    tower.load_state_dict(torch.load(given.tower))
    tower.requires_grad_(False)
    for layer in network.model.language_model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    optimizer = MuonAdamW(network, muon_lr=given.lr, adam_lr=given.lr / 4)
    rng, generator = random.Random(f"seeing {given.seed}"), torch.Generator().manual_seed(given.seed)
    kinds = ((False, 2 * given.batch), (False, given.batch), (True, given.batch // 2))
    many, clips, pictures = (
        Source(tower, rng, batch=batch, pictures=still, weights=given.things, alike=given.alike)
        for still, batch in kinds
    )
    check, dice = random.Random("check"), torch.Generator().manual_seed(1)
    looks = [see(tower, check, dice, 16, still, (2, 12, 12, 3)) for still in (False,) * 6 + (True,) * 2]

    def ask_about(seen: Seen, before: int):
        dialogues = [choose(scene, rng, words, given.room, given.focus) for scene in seen.scenes]
        return pack(dialogues, words, len(words.head) + before)

    def apart(still: bool) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """What stands under the tokens of one batch, and questions about another one that is told."""
        seen = (pictures if still else many).next()
        yield fact_loss(first_layers(network, words, embed(network, seen)), facts_of(seen))
        seen = told(rng, given.batch - 2, still, given.things, given.alike)
        facts = facts_of(seen)
        text = ask_about(seen, facts.shape[1])
        some, places, there = memory(facts, rng, still)
        yield answer_loss(read(network, words, code(some), places, there, text), text), {}

    def joined(still: bool, tell: float, weight: float) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Questions about a batch, and what stands under its tokens."""
        seen = (pictures if still else clips).next()
        facts, visual = facts_of(seen), embed(network, seen)
        text = ask_about(seen, visual.shape[1])
        flags = torch.rand(len(visual), generator=generator) < tell
        logits, hidden = look(network, words, visual, text, code(facts), flags)
        loss, shares = fact_loss(hidden, facts)
        yield weight * loss, shares
        yield answer_loss(logits, text), {}

    begin, step, last, losses = 0.0, 0, 0.0, []
    read_off: dict[str, float] = {}
    while (done := (time.process_time() - begin) / 60 / given.minutes if begin else 0.0) < 1:
        still = rng.random() < given.pictures
        tell = min(max((given.untold - done) / (given.untold - given.apart), 0.0), 1.0)
        parts = apart(still) if done < given.apart else joined(still, tell, 1 - 0.5 * done)
        found = list(parts)
        sum(loss for loss, _ in found).backward()
        optimizer.step(schedule(done, cool=given.cool))
        step += 1
        losses.append(found[-1][0].item())
        for group, share in chain.from_iterable(shares.items() for _, shares in found):
            read_off[group] = 0.95 * read_off.get(group, share) + 0.05 * share
        if step == 3:
            begin = time.process_time()  # Compiling is over.
        if step % 50 == 0:
            shares = " ".join(f"{group} {share:.2f}" for group, share in read_off.items())
            recent = sum(losses[-50:]) / 50
            print(f"{done:.2f} step {step} loss {recent:.4f} told {tell:.2f} {shares}", flush=True)
        if done - last > 0.12:
            last = done
            print(table(score(network, words, looks)), flush=True)
            save(network, given.out)
    save(network, given.out)
    print(f"DONE {step} steps\n{table(score(network, words, looks))}", flush=True)


if __name__ == "__main__":
    main()
