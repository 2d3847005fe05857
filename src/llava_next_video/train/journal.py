"""What a run tells: metrics.jsonl, the loss curve, and the samples that were dropped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from jaxtyping import Float
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava_next_video.data.dataset import Dropped
from llava_next_video.errors import ConfigError
from llava_next_video.train.curve import draw_curve, read_points

METRICS, CURVE, DROPPED = "metrics.jsonl", "loss.svg", "dropped.jsonl"

Report = Callable[[str], None]
"""Where a run says a line to people."""


def silent(line: str) -> None:
    """A report that nobody hears."""


class Journal(TrainerCallback):
    """Appends a line for every report of the loop, names dropped samples, and draws the curve at the end."""

    def __init__(self, output: Path, report: Report) -> None:
        self.output = output
        self.report = report
        self.samples = 0
        self.tokens = 0
        self.dropped: set[str] = set()
        self._told: dict[str, Tensor] = {}
        self._since = time.perf_counter()

    def count(self, *, samples: int, tokens: int, dropped: Sequence[Dropped]) -> None:
        """Take note of one batch; each dropped sample is named once."""
        self.samples += samples
        self.tokens += tokens
        for lost in dropped:
            new = [name for name in lost.ids if name not in self.dropped]
            if new:
                self.dropped.update(new)
                self.report(f"dropped {', '.join(new)}: {lost.reason}")
                with (self.output / DROPPED).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"ids": new, "reason": lost.reason}) + "\n")

    def tell(self, figures: Mapping[str, Float[Tensor, "2"]]) -> None:
        """Take note of figures of one batch: each a sum, and over how many things."""
        self._told = {name: self._told.get(name, 0) + figure for name, figure in figures.items()}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the lines of steps that will be done again."""
        if state.is_world_process_zero:
            keep_until(self.output / METRICS, state.global_step)
        self._since = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """The last step is reported whatever its number."""
        control.should_log |= state.global_step >= state.max_steps
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one line.

        Raises:
            ConfigError: The loss is no number any more.
        """
        if logs is None or "loss" not in logs:
            return
        seconds = time.perf_counter() - self._since
        line = {
            "step": state.global_step,
            **{key: logs[key] for key in ("epoch", "loss", "grad_norm", "learning_rate") if key in logs},
            **self._means(),
            "samples_per_second": round(self.samples / seconds, 3),
            "tokens_per_second": round(self.tokens / seconds, 1),
            "dropped": len(self.dropped),
        }
        self.samples, self.tokens, self._since = 0, 0, time.perf_counter()
        if state.is_world_process_zero:
            with (self.output / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.report(
                f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  "
                f"{line['samples_per_second']:g} samples/s"
            )
        if not math.isfinite(logs["loss"]):
            raise ConfigError(
                f"the loss is {logs['loss']} at step {state.global_step}; lower learning.lr, or raise "
                "learning.warmup, and go on from the last checkpoint"
            )

    def _means(self) -> dict[str, float]:
        """Means of what was told since the last line, over all processes."""
        if not self._told:
            return {}
        figures = reduce(torch.stack(list(self._told.values())), "sum").tolist()
        names, self._told = list(self._told), {}
        return {
            name: round(total / max(count, 1), 6) for name, (total, count) in zip(names, figures, strict=True)
        }

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the loss."""
        metrics = self.output / METRICS
        if state.is_world_process_zero and metrics.exists():
            (self.output / CURVE).write_text(draw_curve(read_points(metrics), "loss"), encoding="utf-8")


def keep_until(metrics: Path, step: int) -> None:
    """Drop the lines after a step: a run that goes on from a checkpoint writes them again."""
    if not metrics.exists():
        return
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    metrics.write_text("".join(kept), encoding="utf-8")
