"""A step of preference learning: ours against TRL's DPOTrainer with a collator for clips.

python benchmarks/dpo_step.py              # about three minutes on two cores
python benchmarks/dpo_step.py --shape tiny --rounds 2

The same weights, pairs, precision, AdamW and frozen copy as the reference; the language model learns. A step
is collation, forward, reference, backward and the update. TRL gets what its users would give it: a row for
each answer, each with its own copy of the clip. Each side has a process of its own, so that its peak is its
own; they take turns. Memory is the peak of the process less what it held after its imports.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from llava_next_video.convert import PRESETS, write_random
from llava_next_video.data.collate import Collator
from llava_next_video.data.dataset import Example, Pixels
from llava_next_video.data.encode import IGNORED
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.comparing import Comparing
from llava_next_video.train.dpo_settings import DpoSettings
from llava_next_video.train.pairs import Pair, PairCollator
from llava_next_video.train.parts import open_parts
from llava_next_video.train.reference import Frozen, frozen_copy
from record import record
from train_step import SHAPES, VIDEO, configuration

FRONT, QUESTION = 4, 12
SIDES = ("trl", "ours")


def pairs_of(given: argparse.Namespace) -> list[Pair]:
    """Random pairs, packed: prompt and clip, then the end of the prompt with either answer."""
    shape = SHAPES[given.shape]
    dice = torch.Generator().manual_seed(0)
    visual = configuration(shape).video_layout(given.frames).tokens
    made = []
    for number in range(given.pairs):
        frames = torch.randn(given.frames, 3, shape.image, shape.image, generator=dice)
        prompt = torch.randint(3, shape.vocabulary, (FRONT + QUESTION,), generator=dice)
        ids = [torch.cat([prompt[:FRONT], torch.full((visual,), VIDEO), prompt[FRONT:-1]])]
        labels = [torch.full_like(ids[0], IGNORED)]
        branches = [torch.zeros_like(ids[0])]
        for branch in (1, 2):
            length = given.answer + int(torch.randint(-4, 5, (), generator=dice))
            said = torch.randint(3, shape.vocabulary, (length,), generator=dice)
            ids.append(torch.cat([prompt[-1:], said]))
            labels.append(torch.cat([torch.tensor([IGNORED]), said]))
            branches.append(torch.full((1 + length,), branch))
        example = Example(
            ids=torch.cat(ids),
            labels=torch.cat(labels),
            branches=torch.cat(branches),
            pixels=(Pixels(values=frames, size=None, tokens=visual),),
        )
        made.append(Pair(example=example, number=number))
    return made


def alone(pair: Pair, branch: int) -> Example:
    """One answer of a pair with prompt and clip of its own."""
    example = pair.example
    keep = (example.branches == 0) | (example.branches == branch)
    return Example(
        ids=example.ids[keep],
        labels=example.labels[keep],
        branches=torch.zeros_like(example.ids[keep]),
        pixels=example.pixels,
    )


def inputs_of(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without what is told about it."""
    return {name: value for name, value in batch.items() if name not in ("samples", "dropped")}


def our_loss(model: Any, pairs: list[Pair]) -> Callable[[], torch.Tensor]:
    """Collation and loss as `train dpo` computes them."""
    objective = Comparing(
        dpo=DpoSettings(),
        reference=Frozen(network=frozen_copy(model), shares_sight=True),
        narrow=nullcontext,
        tell=lambda figures: None,
    )
    collate = PairCollator(0)

    def loss() -> torch.Tensor:
        batch = inputs_of(collate(pairs))
        return objective(model, batch, Comparing.count(batch))

    return loss


def their_loss(model: Any, reference: Any, pairs: list[Pair]) -> Callable[[], torch.Tensor]:
    """Collation and loss as TRL's trainer computes them."""
    import datasets
    import trl

    folder = tempfile.mkdtemp()
    write_random(Path(folder) / "tiny", PRESETS["tiny"])
    trainer = trl.DPOTrainer(
        model,
        ref_model=reference,
        args=trl.DPOConfig(
            output_dir=folder,
            remove_unused_columns=False,
            max_length=None,
            report_to="none",
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        data_collator=lambda rows: rows,
        processing_class=LlavaNextVideoProcessor.from_pretrained(Path(folder) / "tiny").tokenizer,
    )
    collate = Collator(0)

    def loss() -> torch.Tensor:
        batch = inputs_of(collate([alone(pair, branch) for branch in (1, 2) for pair in pairs]))
        batch["completion_mask"] = (batch.pop("labels") != IGNORED).long()
        return trainer.compute_loss(trainer.model, batch)

    return loss


def peak_mb() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_side(given: argparse.Namespace) -> None:
    """Take the steps of one side and print what they took."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    if given.side == "trl":
        import datasets  # noqa: F401
        import trl  # noqa: F401
    before = peak_mb()
    torch.manual_seed(0)
    config = configuration(SHAPES[given.shape])
    model = LlavaNextVideoForConditionalGeneration(config).train()
    open_parts(model, ["language_model"])
    pairs = pairs_of(given)
    if given.side == "ours":
        loss_of = our_loss(model, pairs)
    else:
        reference = LlavaNextVideoForConditionalGeneration(config).eval()
        reference.load_state_dict(model.state_dict())
        loss_of = their_loss(model, reference.requires_grad_(False), pairs)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-5)
    losses, times = [], []
    for _ in range(given.rounds + 1):
        started = time.perf_counter()
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
        losses.append(float(loss.detach()))
    told = {"losses": losses, "times": times[1:], "memory_mb": peak_mb() - before, "imports_mb": before}
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="small", help="model shape (small)")
    parser.add_argument("--pairs", type=int, default=4, help="pairs in a step (4)")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip (8)")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer (32)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of a turn, after one to warm up (5)")
    parser.add_argument("--turns", type=int, default=2, help="turns that each side takes (2)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--record", action="store_true", help="write a result file")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side is not None:
        run_side(given)
        return
    told: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(given.turns):
        for side in SIDES:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            told[side].append(json.loads(done.stdout.splitlines()[-1]))
    losses = [turn["losses"] for turns in told.values() for turn in turns]
    # Both must compute the same thing: the losses of the first two steps, before and after an update.
    for step in (0, 1):
        assert max(one[step] for one in losses) - min(one[step] for one in losses) < 1e-4, losses
    # Other work on the machine only adds to a time, so the fastest step says most.
    seconds = {side: min(time for turn in told[side] for time in turn["times"]) for side in SIDES}
    median = {
        side: statistics.median(time for turn in told[side] for time in turn["times"]) for side in SIDES
    }
    memory = {side: min(turn["memory_mb"] for turn in told[side]) for side in SIDES}
    config = configuration(SHAPES[given.shape])
    figures = {
        "shape": given.shape,
        "pairs": given.pairs,
        "frames": given.frames,
        "visual_tokens_per_clip": config.video_layout(given.frames).tokens,
        "answer_tokens": given.answer,
        "precision": "float32",
        "threads": given.threads,
        "steps": given.rounds * given.turns,
        **{f"{side}_ms": round(seconds[side] * 1e3, 1) for side in SIDES},
        **{f"{side}_pairs_per_second": round(given.pairs / seconds[side], 2) for side in SIDES},
        **{f"{side}_peak_mb": round(memory[side]) for side in SIDES},
        **{f"{side}_imports_mb": round(told[side][0]["imports_mb"]) for side in SIDES},
        "ratio": round(seconds["trl"] / seconds["ours"], 2),
        "ratio_median": round(median["trl"] / median["ours"], 2),
        "target_ratio": 2.0,
        "memory_share": round(memory["ours"] / memory["trl"], 2),
        "target_memory_share": 0.7,
    }
    print(json.dumps(figures, indent=2))
    if given.record:
        print(record("dpo_step", figures))


if __name__ == "__main__":
    main()
