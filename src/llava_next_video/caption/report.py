"""What people look at when a run is over: one HTML file without anything beside it."""

from __future__ import annotations

import base64
import datetime
import html
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from llava_next_video.caption.figures import Figures, estimate, in_words
from llava_next_video.caption.items import Item
from llava_next_video.caption.ledger import parts_of
from llava_next_video.caption.seeing import see_frames
from llava_next_video.caption.table import read_table
from llava_next_video.data.decoder import Decoder
from llava_next_video.disk import write_whole
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.media import Clip, Sampling
from llava_next_video.media.thumbnail import thumbnails

SHOWN = 12
SHOWN_FRAMES = 4
STAGES = ("read_ms", "wait_ms", "generate_ms")
COLUMNS = ["id", "caption", "finish_reason", "flags", "duplicate_of", "error_class", "finished_at", *STAGES]
PAUSE_S = 60.0
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; color: #1c2430 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem } figure { margin: 1.2rem 0 }
table { border-collapse: collapse } td, th { padding: .15rem 1.2rem .15rem 0; text-align: left }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums } figcaption { color: #6b7685 }
figure img { height: 110px; margin-right: 4px; border-radius: 3px }
svg text { font-size: 11px; fill: #6b7685 }
"""


@dataclass(slots=True)
class Summary:
    """All rows of a folder, in numbers, and some of them as they are."""

    reasons: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    words: array[int] = field(default_factory=lambda: array("i"))
    finished_s: array[float] = field(default_factory=lambda: array("d"))
    stages: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in STAGES})
    duplicates: int = 0
    shown: dict[str, str] = field(default_factory=dict)


def write_report(output: Path, path: Path, items: Sequence[Item], figures: Figures) -> None:
    """Write the report of everything in `output`, with frames of some videos of the list."""
    summary = summarise(output, {item.id for item in _spread(items, 4 * SHOWN)})
    chosen = [item for item in items if item.id in summary.shown]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Captions</title>",
        f"<style>{STYLE}</style><h1>Captions of {sum(summary.reasons.values()):,} videos</h1>",
        f"<p>{html.escape(estimate(figures))}.</p>" if figures.done else "",
        _counts(summary, figures),
        _section("Videos a minute, pauses left out", _line(*_throughput(summary.finished_s))),
        _section("Words of a caption", _bars(_histogram(summary.words))),
        _section(
            "Errors by kind", _bars(summary.errors.most_common(12)) if summary.errors else "<p>None.</p>"
        ),
        _section(
            "Captions to distrust", _bars(summary.flags.most_common()) if summary.flags else "<p>None.</p>"
        ),
        _section("Milliseconds", _stages(summary)),
        _section("Some of them", "".join(_gallery(chosen, summary.shown))),
    ]
    write_whole(path, "\n".join(parts))


def summarise(output: Path, wanted: set[str]) -> Summary:
    """Read all parts, one at a time, and keep the captions of some ids."""
    summary = Summary()
    for part in parts_of(output):
        for row in cast(list[dict[str, Any]], read_table(part, COLUMNS).to_pylist()):
            summary.reasons[row["finish_reason"]] += 1
            summary.duplicates += row["duplicate_of"] is not None
            summary.finished_s.append(datetime.datetime.fromisoformat(row["finished_at"]).timestamp())
            summary.flags.update(row["flags"])
            if row["finish_reason"] == "error":
                summary.errors[row["error_class"]] += 1
                continue
            summary.words.append(len(row["caption"].split()))
            if row["duplicate_of"] is None:
                for name in STAGES:
                    summary.stages[name].append(row[name])
            if row["id"] in wanted:
                summary.shown[row["id"]] = row["caption"]
    return summary


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}"


def _counts(summary: Summary, figures: Figures) -> str:
    rows = [
        ("captioned", sum(summary.reasons.values()) - summary.reasons["error"] - summary.duplicates),
        ("duplicates, answered once", summary.duplicates),
        ("errors", summary.reasons["error"]),
    ]
    cells = "".join(f"<tr><td>{name}<td>{count:,}" for name, count in rows)
    record = figures.as_record()
    if figures.done:
        cells += "".join(
            f"<tr><td>{words}<td>{value}"
            for words, value in {
                "this run": in_words(figures.seconds),
                "videos a second": record["videos_per_second"],
                "tokens a second": record["tokens_per_second"],
                "tried again": figures.retries,
                "time the model waited for decoding": f"{record['model_waits_for_decode_percent']} %",
                "time decoding waited for the model": f"{record['decode_waits_for_model_percent']} %",
            }.items()
        )
    return f"<table>{cells}</table>"


def _stages(summary: Summary) -> str:
    cells = "<tr><th>stage<th>median<th>95 %<th>longest"
    for name, words in zip(
        STAGES, ("reading and decoding", "waiting for the model", "generating"), strict=True
    ):
        values = summary.stages[name] or array("d", [0.0])
        marks = (np.percentile(values, share) for share in (50, 95, 100))
        cells += f"<tr><td>{words}" + "".join(f"<td>{mark:,.0f}" for mark in marks)
    return f"<table>{cells}</table>"


def _throughput(finished_s: Sequence[float], bins: int = 60) -> tuple[list[float], float]:
    """Videos a minute in equal spans of the time worked, and the whole of that time in seconds."""
    gaps = np.minimum(np.diff(np.sort(finished_s)), PAUSE_S) if len(finished_s) > 1 else np.zeros(1)
    worked = np.concatenate([[0.0], np.cumsum(gaps)])
    whole = max(float(worked[-1]), 1e-3)
    counts, _ = np.histogram(worked, bins=bins, range=(0.0, whole))
    return (counts * 60.0 * bins / whole).tolist(), whole


def _histogram(words: Sequence[int], bins: int = 12) -> list[tuple[str, int]]:
    if not words:
        return []
    width = max(1, -(-(max(words) + 1) // bins))
    counts = Counter(count // width for count in words)
    return [
        (
            f"{number * width}" if width == 1 else f"{number * width} to {(number + 1) * width - 1}",
            counts[number],
        )
        for number in range(max(counts) + 1)
    ]


def _line(values: list[float], whole_s: float) -> str:
    """A curve of values over time."""
    width, height, top = 720, 140, max(*values, 1e-9)
    step = width / max(1, len(values) - 1)
    points = " ".join(
        f"{number * step:.1f},{height * (1 - value / top):.1f}" for number, value in enumerate(values)
    )
    return (
        f'<svg viewBox="0 -14 {width} {height + 32}" role=img><polyline points="{points}" fill=none '
        f'stroke="#2563a8" stroke-width=2 /><line y1={height} y2={height} x2={width} stroke="#d5dae1" />'
        f"<text y=-3>{top:,.0f}</text><text y={height + 14}>0</text>"
        f"<text x={width} y={height + 14} text-anchor=end>{in_words(whole_s)}</text></svg>"
    )


def _bars(counts: Sequence[tuple[str, int]]) -> str:
    """One bar a name, with its count."""
    most = max((count for _, count in counts), default=1) or 1
    rows = "".join(
        f"<text x=170 y={22 * number + 15} text-anchor=end>{html.escape(name)}</text>"
        f'<rect x=180 y={22 * number + 3} height=16 width={440 * count / most:.1f} fill="#2563a8" />'
        f"<text x={186 + 440 * count / most:.1f} y={22 * number + 15}>{count:,}</text>"
        for number, (name, count) in enumerate(counts)
    )
    return f'<svg viewBox="0 0 720 {22 * len(counts) + 4}" role=img>{rows}</svg>'


def _spread(items: Sequence[Item], count: int) -> Sequence[Item]:
    return items[:: max(1, len(items) // count)]


def _gallery(items: Sequence[Item], captions: Mapping[str, str]) -> list[str]:
    """Frames and captions of some videos; one that cannot be read any more is left out."""
    figures: list[str] = []
    with Decoder(timeout_s=60.0) as decoder:
        for item in items:
            try:
                seen = see_frames(item, decoder, Sampling(frames=SHOWN_FRAMES), look=False)
            except LlavaNextVideoError:
                continue
            assert isinstance(seen.content, Clip)
            images = "".join(
                f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
                for picture in thumbnails(seen.content, height=220)
            )
            figures.append(
                f"<figure>{images}<div>{html.escape(captions[item.id])}</div>"
                f"<figcaption>{html.escape(item.id)}</figcaption></figure>"
            )
            if len(figures) == SHOWN:
                break
    return figures
