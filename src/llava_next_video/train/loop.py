"""The one training loop: transformers' `Trainer` with our batches, rates, journal and saving.

What is learned is the lesson's business; the loop is the same for all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from llava_next_video.data.batches import BatchPlan, BatchShape
from llava_next_video.errors import ConfigError
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.dealing import Dealt, DealtCollator
from llava_next_video.train.journal import Journal
from llava_next_video.train.lesson import Lesson
from llava_next_video.train.merging import write_base
from llava_next_video.train.optimizers import MasterOptimizer
from llava_next_video.train.parts import parameter_groups
from llava_next_video.train.recipe import Recipe
from llava_next_video.train.saving import forget_old, write_whole
from llava_next_video.train.schedule import rate_share
from llava_next_video.train.settings import unknown


class Loop(Trainer):
    """A `Trainer` whose every step is decided by a recipe and a lesson."""

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: nn.Module,
        *,
        recipe: Recipe,
        lesson: Lesson,
        processor: LlavaNextVideoProcessor,
        journal: Journal,
    ) -> None:
        self.recipe = recipe
        self.lesson = lesson
        self.journal = journal
        self._partial: Path | None = None
        arguments = training_arguments(recipe)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=Dealt(lesson.sequences),
            data_collator=DealtCollator(collate=lesson.collate),
            processing_class=processor,
            callbacks=[journal],
        )
        for noisy in (PrinterCallback, ProgressCallback):
            self.remove_callback(noisy)
        # The loss is divided by what the whole step holds, so accumulated batches need no further mean.
        self.model_accepts_loss_kwargs = True
        learning = recipe.learning
        self.plan = BatchPlan(
            lesson.sequences.lengths,
            BatchShape(size=learning.batch, accumulate=learning.accumulate, processes=arguments.world_size),
            seed=recipe.seed,
            process=arguments.process_index,
        )
        self.add_callback(_Epochs(self.plan))

    @property
    def planned_steps(self) -> int:
        """Optimizer steps of the whole run."""
        if self.recipe.learning.steps is not None:
            return self.recipe.learning.steps
        return math.ceil(self.recipe.learning.epochs * self.plan.steps)

    def load_weights(self, checkpoint: Path) -> None:
        """Take the weights of a checkpoint, and nothing else of it."""
        self._load_from_checkpoint(str(checkpoint))

    def save_final(self, folder: Path) -> None:
        """Save the model (its adapter, with LoRA) and the processor; all processes take part."""

        def write(partial: Path) -> None:
            self.save_model(str(partial), _internal_call=True)
            # A pickle with paths of this machine: of use in checkpoints, not in what people hand on.
            (partial / "training_args.bin").unlink(missing_ok=True)
            if self.recipe.lora.rank and self.is_world_process_zero():
                write_base(partial, self.recipe.model)

        write_whole(
            folder,
            write,
            leads=self.is_world_process_zero(),
            wait=self.accelerator.wait_for_everyone,
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's batches of the plan.

        accelerate does not deal them out: where they do not come out even it takes samples of the epoch's
        beginning a second time, so the last step of an epoch differed from that of one process.
        """
        workers = self.recipe.data.workers
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.plan,
            collate_fn=self.data_collator,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            # Its own dice: preparing data must not move those that dropout uses.
            generator=torch.Generator().manual_seed(self.recipe.seed),
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer | None:
        """AdamW, or Muon with AdamW, with a group per part."""
        if self.optimizer is None:
            learning = self.recipe.learning
            muon = learning.optimizer == "muon"
            groups = parameter_groups(
                self.model if model is None else model,
                lr=learning.lr,
                rates=learning.rates,
                weight_decay=learning.weight_decay,
                matrices_apart=muon,
            )
            betas = (learning.betas[0], learning.betas[1])
            masters = muon or learning.precision == "bfloat16_weights"
            kind = MasterOptimizer if masters else torch.optim.AdamW
            self.optimizer = kind(groups, betas=betas)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The recipe's schedule, the same share for every part."""
        learning = self.recipe.learning
        share = functools.partial(
            rate_share, steps=num_training_steps, warmup=learning.warmup, schedule=learning.schedule
        )
        scheduled = self.optimizer if optimizer is None else optimizer
        assert scheduled is not None
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(scheduled, share)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The objective's loss of one batch, as its share of the whole step."""
        batch = dict(inputs)
        samples, dropped = batch.pop("samples"), batch.pop("dropped")
        self.journal.count(samples=samples, tokens=batch["input_ids"].numel(), dropped=dropped)
        items = 1 if num_items_in_batch is None else num_items_in_batch
        # Gradients are averaged over processes, each of which divided by what all of them hold.
        return self.lesson.objective(model, batch, items) * self.accelerator.num_processes

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Any:
        """What the micro-batches of a step hold, over all processes."""
        if not batch_samples:
            return None
        held = torch.stack([self.lesson.count(batch) for batch in batch_samples]).sum(dim=0).to(device)
        return self.accelerator.gather(held[None]).sum(dim=0)

    def _get_output_dir(self, trial: Any) -> str:
        return self.args.output_dir if self._partial is None else str(self._partial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """A checkpoint that is whole or not there; old ones go only after it."""
        output = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"

        def write(folder: Path) -> None:
            self._partial = folder
            try:
                super(Loop, self)._save_checkpoint(model, trial)
            finally:
                self._partial = None
            self.accelerator.wait_for_everyone()
            if leads:
                for path in (folder / name).iterdir():
                    path.rename(folder / path.name)
                (folder / name).rmdir()

        leads = self.is_world_process_zero()
        write_whole(output / name, write, leads=leads, wait=self.accelerator.wait_for_everyone)
        if leads:
            forget_old(output, self.recipe.saving.keep)


class _Epochs(TrainerCallback):
    """Tells the plan which epoch begins; it counts steps, so a resumed run is told the same."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the batches of the epoch that begins."""
        self.plan.set_epoch(state.global_step // self.plan.steps)


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """What the `Trainer` is told; `recipe.trainer` may add what the recipe has no name for.

    Raises:
        ConfigError: An argument that is not known, or that another setting decides.
    """
    learning, saving = recipe.learning, recipe.saving
    decided: dict[str, Any] = {
        "output_dir": recipe.output,
        "per_device_train_batch_size": learning.batch,
        "gradient_accumulation_steps": learning.accumulate,
        "max_steps": -1 if learning.steps is None else learning.steps,
        "num_train_epochs": learning.epochs,
        "learning_rate": learning.lr,
        "max_grad_norm": learning.max_grad_norm,
        "bf16": learning.precision == "bfloat16",
        "logging_steps": saving.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_steps": saving.every,
        "report_to": list(saving.report_to) or "none",
        "remove_unused_columns": False,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "dataloader_num_workers": recipe.data.workers,
        "disable_tqdm": True,
        "use_cpu": not torch.accelerator.is_available(),
    }
    known = [field.name for field in dataclasses.fields(TrainingArguments) if field.init]
    for name in recipe.trainer:
        if name in decided:
            raise ConfigError(f"trainer.{name} is decided by the recipe's own settings; take it out")
        if name not in known:
            raise ConfigError(unknown(f"trainer.{name}", [f"trainer.{other}" for other in known]))
    try:
        arguments = TrainingArguments(**decided, **recipe.trainer)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    # One process, one device: several devices are several processes (accelerate launch, torchrun).
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments
