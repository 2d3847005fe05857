"""Training steps on a GPU: a network as wide as a 7B, but of a few layers, and its share of the peak."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gpu_shapes import FIRST_WORD, VIDEO, Bench, configuration

Figures = dict[str, object]
CLIPS, FRAMES, QUESTIONS, WORDS, ANSWER = 4, 8, 4, 32, 32
LAYERS, TOWER_LAYERS = 4, 4


def train(bench: Bench) -> Figures:
    """A step of fine-tuning and one of preference learning: forward, backward, clipping, AdamW."""
    machine = bench.machine()
    figures: Figures = {
        "layers": LAYERS,
        "tower_layers": TOWER_LAYERS,
        "clips": CLIPS,
        "frames": FRAMES,
        "peak_flops_per_s": 2 * machine.multiplications_per_s,
    }
    for name, prepare in (("sft", sft), ("dpo", dpo)):
        step = prepare(bench)
        with FlopCounterMode(display=False) as counter:
            step()
        rounds = 1 if bench.smoke else 4
        step()
        bench.wait()
        started = time.perf_counter()
        for _ in range(rounds):
            step()
        bench.wait()
        seconds = (time.perf_counter() - started) / rounds
        flops = counter.get_total_flops() / seconds
        figures[name] = {
            "step_ms": 1000 * seconds,
            "flops_per_s": flops,
            "share_of_peak": flops / (2 * machine.multiplications_per_s),
        }
        bench.tell(f"{name}: {figures[name]}")
        del step
        bench.free()
    return figures


def network(bench: Bench) -> Any:
    """The reference network with random weights; the language model learns."""
    from llava_next_video.model import LlavaNextVideoForConditionalGeneration
    from llava_next_video.train.parts import open_parts

    config = configuration(bench.shape, text_layers=LAYERS, tower_layers=TOWER_LAYERS)
    with bench.device:
        model = LlavaNextVideoForConditionalGeneration._from_config(
            config, dtype=bench.dtype, attn_implementation="sdpa"
        )
    model = model.to(bench.device).train()
    open_parts(model, ["language_model"])
    return model


def examples(bench: Bench, branches: int) -> list[Any]:
    """Clips with several answers behind each, packed."""
    from llava_next_video.data.dataset import Example, Pixels
    from llava_next_video.data.encode import IGNORED

    tokens = configuration(bench.shape).video_layout(FRAMES).tokens
    dice = torch.Generator().manual_seed(0)
    side, made = bench.shape.image, []

    def words(count: int) -> Tensor:
        return torch.randint(FIRST_WORD, bench.shape.vocabulary, (count,), generator=dice)

    for _ in range(CLIPS):
        ids = [words(4), torch.full((tokens,), VIDEO)]
        labels = [torch.full((4 + tokens,), IGNORED)]
        numbers = [torch.zeros(4 + tokens, dtype=torch.long)]
        for branch in range(1, branches + 1):
            answer = words(ANSWER)
            ids += [words(WORDS), answer]
            labels += [torch.full((WORDS,), IGNORED), answer]
            numbers.append(torch.full((WORDS + ANSWER,), branch))
        pixels = torch.randn(FRAMES, 3, side, side, generator=dice).to(bench.dtype)
        made.append(
            Example(
                ids=torch.cat(ids),
                labels=torch.cat(labels),
                branches=torch.cat(numbers),
                pixels=(Pixels(values=pixels, size=None, tokens=tokens),),
            )
        )
    return made


def on_device(bench: Bench, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a batch there, without what is told about it."""
    return {
        name: value.to(bench.device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
        if name not in ("samples", "dropped")
    }


def stepper(model: Any, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A whole optimizer step."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-5, fused=learning[0].is_cuda)

    def step() -> None:
        loss().backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def sft(bench: Bench) -> Callable[[], None]:
    """Fine-tuning on packed questions."""
    from llava_next_video.data.collate import Collator
    from llava_next_video.train.objectives import imitate, learned_tokens

    model = network(bench)
    batch = on_device(bench, Collator(0)(examples(bench, QUESTIONS)))
    learned = learned_tokens(batch)
    return stepper(model, lambda: imitate(model, batch, learned))


def dpo(bench: Bench) -> Callable[[], None]:
    """Preference learning against a frozen copy."""
    from llava_next_video.train.comparing import Comparing
    from llava_next_video.train.dpo_settings import DpoSettings
    from llava_next_video.train.pairs import Pair, PairCollator
    from llava_next_video.train.reference import Frozen, frozen_copy

    model = network(bench)
    objective = Comparing(
        dpo=DpoSettings(),
        reference=Frozen(network=frozen_copy(model), shares_sight=True),
        narrow=nullcontext,
        tell=lambda figures: None,
    )
    pairs = [Pair(example=one, number=number) for number, one in enumerate(examples(bench, 2))]
    batch = on_device(bench, PairCollator(0)(pairs))
    items = Comparing.count(batch)
    return stepper(model, lambda: objective(model, batch, items))


SECTIONS: Mapping[str, Any] = {"train": train}
