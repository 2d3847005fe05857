"""An output folder and what it is for: one model, one prompt, one way to look."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llava_next_video.caption.claims import Claims
from llava_next_video.caption.desk import Desk, Settings
from llava_next_video.caption.figures import Figures
from llava_next_video.caption.items import Item
from llava_next_video.caption.ledger import STATE, VIEWS, Ledger
from llava_next_video.caption.outcome import Model
from llava_next_video.caption.report import write_report
from llava_next_video.caption.run import run
from llava_next_video.disk import write_whole
from llava_next_video.errors import ConfigError

JOB = "_job.json"
REPORT = "_report.html"


Work = Callable[[Desk, Model, Callable[[Figures], None]], Figures]


def on_this_machine(desk: Desk, model: Model, told: Callable[[Figures], None]) -> Figures:
    """Load the model here, and work."""
    return run(desk, model.load(), told)


def caption(
    items: Sequence[Item],
    output: Path,
    model: Model,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    *,
    new_run: bool = False,
    retry_errors: bool = False,
    report: bool = True,
    work: Work = on_this_machine,
    told: Callable[[Figures], None] = lambda figures: None,
) -> Figures:
    """Caption what is not done yet; run it again after a kill, or beside itself, and each id is there once.

    Args:
        items: What to caption, as `list_items` gives it.
        output: A folder, made if need be: `part-*.parquet`, and what we need in names that start with `_`.
        model: Who describes; it is loaded if there is anything to do, and closed at the end.
        settings: How to work.
        new_run: Move the captions that are there aside, into `_earlier-1`, and begin anew.
        retry_errors: Try again what ended with an error.
        report: Write `_report.html` at the end.
        work: Who does it; what `cluster.on_ray` gives lets a cluster do it.
        told: Hears the figures, several times a second.

    Raises:
        ConfigError: The folder has captions of another model or prompt, or is none of ours.
        DescriberGoneError: The model is gone; what was finished is safe.
        OSError: The disk is full, read-only or gone; what was finished is safe.
    """
    mark = open_output(output, model.identity, new_run=new_run)
    desk = Desk(items, output, settings, model=model.name, fingerprint=mark)
    desk.begin(retry_errors=retry_errors)
    try:
        figures = work(desk, model, told) if not desk.feed.over else desk.figures(over=True)
    finally:
        desk.leave()
    told(figures)
    if report:
        write_report(output, output / REPORT, items, figures)
    return figures


def fingerprint(identity: Mapping[str, object]) -> str:
    """A short name for all that decides a caption.

    >>> fingerprint({"prompt": "Why?", "frames": 8}) == fingerprint({"frames": 8, "prompt": "Why?"})
    True
    """
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def open_output(output: Path, identity: Mapping[str, object], *, new_run: bool = False) -> str:
    """Make the folder, or find that it is for the same job; gives the job's fingerprint.

    Raises:
        ConfigError: It is for another job, or none of ours.
    """
    mark = fingerprint(identity)
    output.mkdir(parents=True, exist_ok=True)
    if new_run:
        _set_aside(output)
    job = output / JOB
    if not job.exists() and any(output.glob("*.parquet")):
        raise ConfigError(f"{output} has parquet files that are not this command's; name another folder")
    record = json.dumps({"fingerprint": mark, **identity}, indent=1, ensure_ascii=False) + "\n"
    if not job.exists():
        write_whole(job, record, replace=False)
    found = json.loads(job.read_text())
    if found["fingerprint"] != mark:
        raise ConfigError(
            f"{output} has captions made with {_difference(found, identity)}; name another folder, or move "
            "them aside with --new-run"
        )
    return mark


FLAGS = {"max_new_tokens": "--max-tokens", "per_second": "--fps", "server_model": "--model"} | {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "prompt",
        "frames",
        "near_keys",
        "temperature",
        "seed",
        "dtype",
        "quantize",
        "kv_dtype",
        "send",
    )
}


def _difference(found: Mapping[str, object], identity: Mapping[str, object]) -> str:
    """The first thing that differs, by its flag if it has one."""
    for name in sorted({*found, *identity} - {"fingerprint"}):
        if found.get(name) != identity.get(name):
            before, now = found.get(name), identity.get(name)
            if isinstance(before, Mapping) and isinstance(now, Mapping):
                return _difference(before, now)
            return f"{FLAGS.get(name, name)} {before!r}, not {now!r}"
    return "other settings"


def _set_aside(output: Path) -> None:
    """Move a run's files into the first free `_earlier-N`, the newest part first.

    So the log stays without gaps, whenever this is cut short.
    """
    if not (output / JOB).exists():
        return
    claims = Claims(output)
    try:
        ledger = Ledger(output, claims.name)
        claims.inherit = ledger.adopt
        living = claims.bury_dead()
        ledger.close()
    finally:
        claims.close()
    if living:
        raise ConfigError(
            f"{output}: {living[0].name} works on it, or was killed on another machine; end it, or remove "
            f"{output / STATE} if it is dead, before --new-run"
        )
    number = 1
    while (output / f"_earlier-{number}").exists():
        number += 1
    earlier = output / f"_earlier-{number}"
    earlier.mkdir()
    parts = sorted(output.glob("part-*.parquet"), reverse=True)
    for path in [*parts, output / VIEWS, output / STATE, output / REPORT, output / JOB]:
        if path.exists():
            path.rename(earlier / path.name)
