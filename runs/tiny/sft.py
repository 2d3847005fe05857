"""`align` (projector only), then `sft` (projector and language model): questions about clips and pictures.

As in the original: nothing but text is learnt from, and the tower stays frozen. Each batch looks at clips
or at pictures; each of them answers some eight packed questions.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from clips import Source, embed, see
from forward import look
from network import make_network
from optimizer import MuonAdamW, schedule
from score import score, table
from text import Words, answer_loss, choose, make_tokenizer, pack, save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    out = Path(__file__).parent / "out"
    parser.add_argument("stage", choices=("align", "sft"))
    parser.add_argument("--minutes", type=float, required=True, help="minutes of processor time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--room", type=int, default=144, help="text tokens behind each clip")
    parser.add_argument("--pictures", type=float, default=0.15, help="share of batches with pictures")
    parser.add_argument("--things", type=float, nargs=4, default=(3, 37, 40, 20), help="weights of 0 1 2 3")
    parser.add_argument("--alike", type=float, default=0.2, help="share of scenes whose things resemble")
    parser.add_argument("--focus", type=float, default=0.2, help="share of scenes asked for late look-ups")
    parser.add_argument("--lr", type=float, default=0.0015)
    parser.add_argument("--cool", type=float, default=0.95, help="share of the time in which the rate falls")
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=out / "sft.pt")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    words = Words(make_tokenizer())
    network = make_network(words.tokenizer, given.seed)
    network.load_state_dict(torch.load(given.start))
    network.requires_grad_(given.stage == "sft")
    network.model.multi_modal_projector.requires_grad_(True)
    network.model.image_newline.requires_grad_(True)
    tower = network.model.vision_tower.requires_grad_(False)
    for layer in network.model.language_model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    optimizer = MuonAdamW(network, muon_lr=given.lr, adam_lr=given.lr / 4)
    rng = random.Random(f"{given.stage} {given.seed} {given.start.name}")
    clips, pictures = (
        Source(tower, rng, batch=batch, pictures=still, weights=given.things, alike=given.alike)
        for still, batch in ((False, given.batch), (True, given.batch // 2))
    )
    check, dice = random.Random("check"), torch.Generator().manual_seed(1)
    looks = [see(tower, check, dice, 16, still, (2, 12, 12, 3)) for still in (False,) * 6 + (True,) * 2]
    begin, step, last, losses = 0.0, 0, 0.0, []
    while (done := (time.process_time() - begin) / 60 / given.minutes if begin else 0.0) < 1:
        seen = (pictures if rng.random() < given.pictures else clips).next()
        visual = embed(network, seen)
        dialogues = [choose(scene, rng, words, given.room, given.focus) for scene in seen.scenes]
        text = pack(dialogues, words, len(words.head) + visual.shape[1])
        loss = answer_loss(look(network, words, visual, text)[0], text)
        loss.backward()
        optimizer.step(schedule(done, cool=given.cool))
        step += 1
        losses.append(loss.item())
        if step == 3:
            begin = time.process_time()  # Compiling is over.
        if step % 50 == 0:
            print(f"{done:.2f} step {step} loss {sum(losses[-50:]) / 50:.4f}", flush=True)
        if done - last > 0.3:
            last = done
            print(table(score(network, words, looks)), flush=True)
            save(network, given.out)
    save(network, given.out)
    print(f"DONE {step} steps\n{table(score(network, words, looks))}", flush=True)


if __name__ == "__main__":
    main()
