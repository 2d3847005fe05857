"""Lines and bars as SVG, without a library."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 340, 48, 210, 34, 44
COLOURS = ("#1f5fa8", "#c0504d", "#5a9e57", "#8064a2", "#e08b2c", "#4b4b4b")

Point = tuple[float, float, float, float]
"""Place, value, and the ends of its interval."""


def lines(
    title: str,
    series: Mapping[str, Sequence[Point]],
    *,
    ticks: Mapping[float, str],
    below: str,
    high: float = 100.0,
) -> str:
    """One line for each series over places from 0 to 1; values from 0 to `high`."""
    parts = []
    for index, (name, points) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        placed = [
            (_x(place), _y(value, high), _y(low, high), _y(top, high)) for place, value, low, top in points
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in placed)
        dash = ' stroke-dasharray="6 4"' if name.startswith("automatic") else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for x, y, low, top in placed:
            parts.append(f'<path d="M{x:.1f},{low:.1f} V{top:.1f}" stroke="{colour}"/>')
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        parts.append(_key(index, name, colour))
    marks = [
        f'<text x="{_x(place):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{text}</text>'
        for place, text in ticks.items()
    ]
    return _framed(title, below, [*marks, *parts], high)


def bars(title: str, groups: Mapping[str, Mapping[str, Point]], *, high: float = 100.0) -> str:
    """Bars side by side in groups, with their intervals; the place of a point is not looked at."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    parts = []
    span = 1 / len(groups)
    wide = 0.8 * span / len(names)
    for number, (label, group) in enumerate(groups.items()):
        for index, name in enumerate(names):
            if name not in group:
                continue
            _, value, low, top = group[name]
            left, right = (_x(number * span + 0.1 * span + wide * (index + end)) for end in (0, 0.9))
            colour, y = COLOURS[index % len(COLOURS)], _y(value, high)
            parts.append(
                f'<rect x="{left:.1f}" y="{y:.1f}" width="{right - left:.1f}" '
                f'height="{_y(0, high) - y:.1f}" fill="{colour}"/>'
            )
            middle = (left + right) / 2
            parts.append(f'<path d="M{middle:.1f},{_y(low, high):.1f} V{_y(top, high):.1f}" stroke="black"/>')
        parts.append(
            f'<text x="{_x((number + 0.5) * span):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
            f"{html.escape(label)}</text>"
        )
    parts += [_key(index, name, COLOURS[index % len(COLOURS)]) for index, name in enumerate(names)]
    return _framed(title, "", parts, high)


def _x(place: float) -> float:
    return LEFT + place * (WIDTH - LEFT - RIGHT)


def _y(value: float, high: float) -> float:
    return TOP + (1 - min(max(value, 0.0), high) / high) * (HEIGHT - TOP - BOTTOM)


def _key(index: int, name: str, colour: str) -> str:
    y = TOP + 10 + 18 * index
    return (
        f'<rect x="{WIDTH - RIGHT + 16}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
        f'<text x="{WIDTH - RIGHT + 32}" y="{y}">{html.escape(name)}</text>'
    )


def _framed(title: str, below: str, parts: Sequence[str], high: float) -> str:
    grid = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _y(share * high, high)
        grid.append(f'<path d="M{LEFT},{y:.1f} H{WIDTH - RIGHT}" stroke="#ddd"/>')
        grid.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * high:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{LEFT}" y="18" font-size="14">{html.escape(title)}</text>',
            *grid,
            *parts,
            f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(below)}</text>',
            "</svg>\n",
        ]
    )
