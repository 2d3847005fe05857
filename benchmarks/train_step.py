"""One training step: ours, packed, against transformers' own class and one clip per question.

python benchmarks/train_step.py            # the shape of the tiny checkpoint
python benchmarks/train_step.py --shape small --clips 2

The same weights, questions, precision and AdamW; the two sides take turns in one process and are warm. A step
is collation, forward, backward and the update. Theirs gets a right-padded batch of one question per row, each
with its own copy of the clip, as transformers' class and processor collate it. The matmul peak is that of a
large float32 product in the same process; the share counts the products that a step really does.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, LlamaConfig
from transformers import LlavaNextVideoForConditionalGeneration as Theirs

from llava_next_video.data.collate import Collator
from llava_next_video.data.dataset import Example, Pixels
from llava_next_video.data.encode import IGNORED
from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration
from llava_next_video.train.objectives import imitate
from record import record

VIDEO, FRONT, QUESTION, ANSWER = 1, 4, 9, 4
"""The placeholder, and tokens before the clip, in a question, and in its answer (the toy world's means)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Widths in features, sides in pixels."""

    image: int
    patch: int
    tower: tuple[int, int]
    language: tuple[int, int]
    head: int
    vocabulary: int


SHAPES = {
    "tiny": Shape(image=48, patch=8, tower=(128, 4), language=(192, 4), head=32, vocabulary=512),
    "small": Shape(image=168, patch=14, tower=(256, 6), language=(384, 8), head=64, vocabulary=8192),
}


def configuration(shape: Shape) -> LlavaNextVideoConfig:
    """A model of that shape, text and tower alike with inner layers four times as wide."""
    vision = CLIPVisionConfig(
        hidden_size=shape.tower[0],
        intermediate_size=4 * shape.tower[0],
        num_hidden_layers=shape.tower[1],
        num_attention_heads=shape.tower[0] // shape.head,
        image_size=shape.image,
        patch_size=shape.patch,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.language[0],
        intermediate_size=4 * shape.language[0],
        num_hidden_layers=shape.language[1],
        num_attention_heads=shape.language[0] // shape.head,
        max_position_embeddings=4096,
    )
    return LlavaNextVideoConfig(vision, text, image_token_index=2, video_token_index=VIDEO)


def conversation(visual: int, dice: torch.Generator, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Ids and labels of one question about a clip, of a length near the mean."""
    lengths = [QUESTION + int(torch.randint(-3, 4, (), generator=dice)), ANSWER]
    words = torch.randint(3, vocabulary, (sum(lengths),), generator=dice)
    ids = torch.cat([torch.arange(3, 3 + FRONT), torch.full((visual,), VIDEO), words])
    labels = torch.full_like(ids, IGNORED)
    labels[-ANSWER:] = ids[-ANSWER:]
    return ids, labels


def packed(talks: Sequence[tuple[Tensor, Tensor]], clip: Pixels) -> Example:
    """All questions about a clip in one sequence."""
    front = FRONT + clip.tokens
    ids, labels = (torch.cat([talks[0][i][:front], *[talk[i][front:] for talk in talks]]) for i in (0, 1))
    branches = [torch.zeros(front)] + [torch.full((len(t[0]) - front,), n) for n, t in enumerate(talks, 1)]
    return Example(ids=ids, labels=labels, branches=torch.cat(branches).long(), pixels=(clip,))


def alone(talk: tuple[Tensor, Tensor], clip: Pixels) -> Example:
    """One question with a clip of its own."""
    return Example(ids=talk[0], labels=talk[1], branches=torch.zeros_like(talk[0]), pixels=(clip,))


def matmul_peak(side: int = 1536, rounds: int = 7) -> float:
    """Floating-point operations a second of a large product."""
    first, second = torch.randn(2, side, side)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        first @ second
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times)


def flops(step: Callable[[], object]) -> int:
    """Products that one step does."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="model shape (tiny)")
    parser.add_argument("--clips", type=int, default=16, help="clips in a step (16)")
    parser.add_argument("--questions", type=int, default=8, help="questions about each clip (8)")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip (8)")
    parser.add_argument("--rounds", type=int, default=7, help="steps that each side takes (7)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--record", action="store_true", help="write a result file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    dice = torch.Generator().manual_seed(0)
    shape = SHAPES[given.shape]
    config = configuration(shape)
    ours = LlavaNextVideoForConditionalGeneration(config).train()
    theirs = Theirs(Theirs.config_class(**config.to_dict())).train()
    weights = ours.state_dict()
    theirs.load_state_dict({key: weights[key] for key in theirs.state_dict()})

    visual = config.video_layout(given.frames).tokens
    clips = [
        Pixels(
            values=torch.randn(given.frames, 3, shape.image, shape.image, generator=dice),
            size=None,
            tokens=visual,
        )
        for _ in range(given.clips)
    ]
    talks = [[conversation(visual, dice, shape.vocabulary) for _ in range(given.questions)] for _ in clips]
    learned = given.clips * given.questions * ANSWER
    collate = Collator(0)
    losses: dict[str, float] = {}

    def stepper(
        name: str, model: torch.nn.Module, batch: Callable[[], dict[str, Tensor]], own: bool
    ) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

        def step() -> None:
            inputs = {key: value for key, value in batch().items() if key not in ("dropped", "samples")}
            loss = imitate(model, inputs, learned) if own else model(**inputs, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.setdefault(name, float(loss.detach()))

        return step

    def together() -> dict[str, Tensor]:
        return collate([packed(talk, clip) for talk, clip in zip(talks, clips, strict=True)])

    def apart() -> dict[str, Tensor]:
        return collate([alone(one, clip) for talk, clip in zip(talks, clips, strict=True) for one in talk])

    unpacked = LlavaNextVideoForConditionalGeneration(config).train()
    unpacked.load_state_dict(weights)
    steps = {
        "transformers": stepper("transformers", theirs, apart, own=False),
        "ours_unpacked": stepper("ours_unpacked", unpacked, apart, own=True),
        "ours_packed": stepper("ours_packed", ours, together, own=True),
    }
    # The first step is the warm-up, and all three must have the same loss in it.
    work = {name: flops(step) for name, step in steps.items()}
    spread = max(losses.values()) - min(losses.values())
    assert spread < 1e-4 * max(losses.values()), losses
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks = []
    for _ in range(given.rounds):
        peaks.append(matmul_peak())
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    peak = max(peaks)
    # Other work on the machine only adds to a time, so the fastest round says most.
    seconds = {name: min(values) for name, values in times.items()}
    samples = given.clips * given.questions
    ratios = [slow / fast for slow, fast in zip(times["transformers"], times["ours_packed"], strict=True)]
    figures = {
        "shape": given.shape,
        "parameters": sum(parameter.numel() for parameter in ours.parameters()),
        "clips": given.clips,
        "questions_per_clip": given.questions,
        "visual_tokens_per_clip": visual,
        "precision": "float32",
        "threads": given.threads,
        "rounds": given.rounds,
        "matmul_peak_gflops": round(peak / 1e9, 1),
        **{f"{name}_ms": round(value * 1e3, 1) for name, value in seconds.items()},
        **{f"{name}_questions_per_second": round(samples / value, 1) for name, value in seconds.items()},
        **{f"{name}_share_of_peak": round(work[name] / value / peak, 3) for name, value in seconds.items()},
        "ratio": round(seconds["transformers"] / seconds["ours_packed"], 2),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_lowest": round(min(ratios), 2),
        "ratio_unpacked": round(seconds["transformers"] / seconds["ours_unpacked"], 2),
        "target_ratio": 1.5,
    }
    print(json.dumps(figures, indent=2))
    if given.record:
        print(record("train_step", figures))


if __name__ == "__main__":
    main()
