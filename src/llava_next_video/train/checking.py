"""Check a data file against a model, before a run does."""

from __future__ import annotations

import os
from collections.abc import Callable

from llava_next_video.data.check import Report, check_samples
from llava_next_video.data.files import read_each
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.model.context import context_limit
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.recipe import DataSettings
from llava_next_video.train.run import rules, text_encoder


def check_data(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str],
    settings: DataSettings | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """What training this model on that file would meet: media that do not open, samples that do not fit.

    Only the model's configuration and processor are read, not its weights.

    Args:
        path: A file of samples in any format that `data.files.read_samples` knows.
        model: Checkpoint folder or hub name.
        settings: How clips are looked at, and the context; as in a recipe's [data].
        root: What media paths are relative to; the file's folder if None.
        workers: Media that are opened at once.
        progress: Told how many samples are done.

    Raises:
        DataError: The file as a whole cannot be read.
    """
    settings = settings or DataSettings()
    config = LlavaNextVideoConfig.from_pretrained(model)
    how = rules(settings, context_limit(config))
    return check_samples(
        read_each(path, root),
        encoder=text_encoder(LlavaNextVideoProcessor.from_pretrained(model), settings),
        layouts=config,
        sampling=how.sampling,
        context=how.context,
        timeout_s=settings.timeout_s,
        workers=workers,
        progress=progress,
    )
