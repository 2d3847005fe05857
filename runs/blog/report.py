"""Tables and plots of results.json: writes the plots, and the tables between the marks of README.md.

python report.py             # after a run: OUT/results.json becomes results.json
python report.py --check     # says whether README.md has the tables of results.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from plot import Point, bars, lines

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- tables of results.json, by report.py -->", "<!-- end of the tables -->"
SHOWN = ("colour", "shape", "count", "existence", "places", "motion", "order", "captions")
DRAWN = ("frames", "places", "motion", "order", "captions")
CLIPS = {
    "pictures alone": "pictures-tiles",
    "then clips alone": "clips-alone",
    "then both, separate batches": "clips-separate",
    "then both, mixed batches": "clips-mixed",
}
CAPTIONS = {
    "right": "facts told, of the true ones",
    "missing": "facts missing",
    "wrong": "wrong facts, per true one",
    "judge": "the judge's share",
    "exact": "captions right to the letter",
    "words": "words",
}
QUESTIONS = {"all": "all questions", "frames": "what frames show", "motion": "motion", "order": "order"}
FACTORS = (1.0, 2.0, 4.0)
KINDS = ("plain", "stretched")

Cell = dict[str, Any]


def told(cell: Cell | None) -> str:
    """A mean, its interval, and each network.

    >>> told({"mean": 91.24, "low": 89.0, "high": 93.4, "seeds": [91.0, 90.6, 92.1]})
    '91.2 (89-93; 91 91 92)'
    """
    if cell is None:
        return "-"
    seeds = " ".join(f"{value:.0f}" for value in cell["seeds"])
    return f"{cell['mean']:.1f} ({cell['low']:.0f}-{cell['high']:.0f}; {seeds})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def tables(found: dict[str, Any]) -> str:
    """All tables of what is there."""
    makers = (_pictures, _clips, _preferences, _rounds, _lengths, _steps)
    parts = [make(found) for make in makers]
    return "\n\n".join(part for part in parts if part)


def _pictures(found: dict[str, Any]) -> str:
    rows = []
    for label, name in (("with tiles (AnyRes)", "pictures-tiles"), ("base view only", "pictures-base")):
        for medium in ("pictures", "clips"):
            if cells := found.get(name, {}).get(medium):
                seen = "clips, zero-shot" if medium == "clips" else "pictures"
                rows.append([label, seen, *(told(cells.get(group)) for group in SHOWN)])
    if not rows:
        return ""
    rows += _guessed(found.get("pictures-tiles", {}).get("clips"), 2)
    return "### (a) From pictures alone\n\n" + table(["pictures are seen", "asked about", *SHOWN], rows)


def _clips(found: dict[str, Any]) -> str:
    if not any(name.startswith("clips") for name in found):
        return ""
    parts = []
    for medium in ("clips", "pictures"):
        rows = []
        for label, name in CLIPS.items():
            if cells := found.get(name, {}).get(medium):
                steps = [log["steps"] for log in found[name]["log"] if name.startswith("clips")]
                shown = [told(cells.get(group)) for group in SHOWN if _asked(medium, group)]
                rows.append([label, *(f"{step:,}" for step in steps or [0]), *shown])
        rows += _guessed(found.get("clips-mixed", {}).get(medium), 2, medium)
        shown_groups = [group for group in SHOWN if _asked(medium, group)]
        parts.append(f"Asked about {medium}:\n\n" + table(["learnt from", "steps", *shown_groups], rows))
    return "### (b) Fine-tuned on clips\n\n" + "\n\n".join(parts)


def _asked(medium: str, group: str) -> bool:
    return medium == "clips" or group not in ("motion", "order")


def _guessed(cells: dict[str, Cell] | None, before: int, medium: str = "clips") -> list[list[str]]:
    """The row of what guessing gives."""
    if not cells:
        return []
    shown = [f"{cells[g]['guess']:.1f}" if g in cells else "-" for g in SHOWN if _asked(medium, g)]
    return [["guessing", *[""] * (before - 1), *shown]]


def _preferences(found: dict[str, Any]) -> str:
    part = found.get("preferences", {})
    if "before" not in part:
        return ""
    moments = [moment for moment in ("before", "after") if moment in part]
    rows = [
        [f"captions: {label}", *(told(part[moment]["captions"].get(name)) for moment in moments)]
        for name, label in CAPTIONS.items()
    ]
    rows += [
        [f"questions: {label}", *(told(part[moment]["questions"].get(name)) for moment in moments)]
        for name, label in QUESTIONS.items()
    ]
    count = len(part.get("rounds", []))
    return f"### (c) Preferences, {count} rounds\n\n" + table(["greedy answers", *moments], rows)


def _rounds(found: dict[str, Any]) -> str:
    rounds = found.get("preferences", {}).get("rounds")
    if not rounds:
        return ""
    rows = []
    for number, one in enumerate(rounds, 1):
        means = [f"{_mean(one[name]):.1f}" for name in ("judge", "right", "missing", "wrong", "words")]
        learnt = [f"{one[name]:.2f}" if name in one else "-" for name in ("accuracy", "margin")]
        rows.append([str(number), str(round(_mean(one["pairs"]))), *means, *learnt])
    head = [
        "round",
        "pairs",
        "judge",
        "told",
        "missing",
        "wrong",
        "words",
        "accuracy",
        "margin",
    ]
    return "Drawn captions (T 1.0, top-p 0.95) before each round, and how its pairs were learnt:\n\n" + table(
        head, rows
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def read(found: dict[str, Any], kind: str, frames: int, factor: float) -> Cell | None:
    """All questions about clips of so many frames under a factor."""
    for row in found.get("lengths", {}).get("rows", []):
        if (row["kind"], row["frames"], row["factor"]) == (kind, frames, factor):
            return row["cells"]["all"]
    return None


def automatic(found: dict[str, Any]) -> dict[int, float]:
    """The factor that the product's rule takes, for each number of frames."""
    return {row["frames"]: row["factor"] for row in found["lengths"]["rows"] if row["automatic"]}


def lost(found: dict[str, Any], kind: str, frames: int) -> float | None:
    """Points that the automatic rule loses to the best of the factors."""
    rule = read(found, kind, frames, automatic(found)[frames])
    others = [cell for factor in FACTORS if (cell := read(found, kind, frames, factor))]
    return max(cell["mean"] for cell in others) - rule["mean"] if rule and others else None


def _lengths(found: dict[str, Any]) -> str:
    part = found.get("lengths", {})
    if not part.get("rows"):
        return ""
    parts = [f"### (d) More frames than in training (4 to 16; {part['trained']} tokens)"]
    for kind in KINDS:
        rows = []
        for frames, rule in automatic(found).items():
            shares = [told(read(found, kind, frames, factor)) for factor in FACTORS]
            points = lost(found, kind, frames)
            taken = f"{rule:g}: {told(read(found, kind, frames, rule))}"
            rows.append([str(frames), *shares, taken, "-" if points is None else f"{points:.1f}"])
        head = [
            "frames",
            *(f"factor {factor:g}" for factor in FACTORS),
            "automatic rule",
            "points lost",
        ]
        parts.append(f"`{kind}`, all questions:\n\n" + table(head, rows))
    return "\n\n".join(parts)


def _steps(found: dict[str, Any]) -> str:
    rows = [
        [name, log["stage"], f"{log['steps']:,}", f"{log.get('seconds', 0):.0f}"]
        for name, part in found.items()
        if isinstance(part, dict)
        for log in part.get("log", [])
        if log["stage"] != "preferences"
    ]
    return "### Steps\n\n" + table(["part", "stage", "steps", "seconds"], rows) if rows else ""


def plots(found: dict[str, Any]) -> dict[str, str]:
    """File names and drawings of what is there."""
    drawn = {}
    if any(name in found for name in CLIPS.values()):
        base = {"pictures alone, base view": "pictures-base"}
        groups = {
            group: {
                label: _point(0, cells[group])
                for label, name in {**base, **CLIPS}.items()
                if group in (cells := found.get(name, {}).get("clips", {}))
            }
            for group in DRAWN
        }
        drawn["clips.svg"] = bars("Questions about clips, per cent right", groups)
    rounds = found.get("preferences", {}).get("rounds")
    if rounds:
        last = max(len(rounds) - 1, 1)
        series = {
            label: [
                (number / last, _mean(one[name]), min(one[name]), max(one[name]))
                for number, one in enumerate(rounds)
            ]
            for name, label in (
                ("right", "facts told"),
                ("missing", "missing"),
                ("wrong", "wrong"),
                ("judge", "judge"),
            )
        }
        ticks = {number / last: str(number + 1) for number in range(len(rounds))}
        drawn["rounds.svg"] = lines("Drawn captions, per cent", series, ticks=ticks, below="round")
    if found.get("lengths", {}).get("rows"):
        rule = automatic(found)
        least, most = math.log2(min(rule)), math.log2(max(rule))
        places = {frames: (math.log2(frames) - least) / max(most - least, 1) for frames in rule}
        ticks = {place: str(frames) for frames, place in places.items()}
        for kind in KINDS:
            series = {
                f"factor {factor:g}": [
                    _point(place, cell)
                    for n, place in places.items()
                    if (cell := read(found, kind, n, factor))
                ]
                for factor in FACTORS
            }
            series["automatic rule"] = [
                _point(place, cell) for n, place in places.items() if (cell := read(found, kind, n, rule[n]))
            ]
            title = f"All questions, per cent right ({kind})"
            drawn[f"frames-{kind}.svg"] = lines(title, series, ticks=ticks, below="frames")
    return drawn


def _point(place: float, cell: Cell) -> Point:
    return place, cell["mean"], cell["low"], cell["high"]


def filled(text: str, found: dict[str, Any]) -> str:
    """The README with the tables of these results between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(found)}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the tables differ")
    given = parser.parse_args()
    results, readme, fresh = HERE / "results.json", HERE / "README.md", HERE / "out" / "results.json"
    if fresh.exists() and not given.check:
        results.write_text(fresh.read_text(encoding="utf-8"), encoding="utf-8")
    found = json.loads(results.read_text(encoding="utf-8"))
    text = readme.read_text(encoding="utf-8")
    wanted = {readme: filled(text, found)} | {HERE / name: svg for name, svg in plots(found).items()}
    stale = [path.name for path, value in wanted.items() if not path.exists() or path.read_text() != value]
    if given.check and stale:
        sys.exit(f"not what results.json says: {', '.join(stale)}; run report.py")
    for path, value in wanted.items():
        path.write_text(value, encoding="utf-8")


if __name__ == "__main__":
    main()
