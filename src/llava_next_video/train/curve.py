"""The loss of a run as a picture (SVG), drawn from its metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 320, 56, 36


def read_points(metrics: Path, key: str = "loss") -> list[tuple[int, float]]:
    """Step and value of every line that has the key."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines() if line]
    return [(int(line["step"]), float(line[key])) for line in lines if key in line]


def draw_curve(points: Sequence[tuple[int, float]], title: str) -> str:
    """The points as an SVG document: faint as they are, bold as a running mean.

    >>> draw_curve([(1, 2.0), (2, 1.0)], "loss").startswith("<svg")
    True
    """
    if not points:
        points = [(0, 0.0)]
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = min(values), max(values)
    span, length = (high - low) or 1.0, (steps[-1] - steps[0]) or 1

    def placed(step: int, value: float) -> str:
        x = LEFT + (step - steps[0]) / length * (WIDTH - LEFT - 16)
        y = 28 + (high - value) / span * (HEIGHT - BOTTOM - 28)
        return f"{x:.1f},{y:.1f}"

    raw = " ".join(placed(step, value) for step, value in points)
    smooth = " ".join(placed(step, value) for step, value in zip(steps, _running_mean(values), strict=True))
    marks = [
        f'<text x="{LEFT - 6}" y="{28 + share * (HEIGHT - BOTTOM - 28) + 4:.0f}" text-anchor="end">'
        f"{high - share * span:.3g}</text>"
        for share in (0.0, 0.5, 1.0)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{LEFT}" y="16">{_escaped(title)}</text>',
            f'<path d="M{LEFT},28 V{HEIGHT - BOTTOM} H{WIDTH - 16}" fill="none" stroke="#999"/>',
            *marks,
            f'<text x="{LEFT}" y="{HEIGHT - 14}">step {steps[0]:,}</text>',
            f'<text x="{WIDTH - 16}" y="{HEIGHT - 14}" text-anchor="end">step {steps[-1]:,}</text>',
            f'<polyline points="{raw}" fill="none" stroke="#9bbce0"/>',
            f'<polyline points="{smooth}" fill="none" stroke="#1f5fa8" stroke-width="2"/>',
            "</svg>\n",
        ]
    )


def _running_mean(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Exponential mean without the pull of the first value."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return means


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
