"""Tables and plots of results.json: writes the plots, and the tables between the marks of README.md.

python report.py out/results.json   # what a run left becomes results.json; of several, later parts win
python report.py out/results.json --parts lengths   # only these parts; the others stay as they are
python report.py                    # writes tables and plots anew
python report.py --check            # says whether they are those of results.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from files import write_whole
from plot import Point, bars, lines
from ropes import automatic, name_of
from tables import CLIPS, DRAWN, LABELS, Cell, lengths, mean, read, tables

from llava_next_video.long_video import RopeScaling

HERE = Path(__file__).resolve().parent
PLOTTED = (
    None,
    RopeScaling(factor=2.0),
    RopeScaling(factor=4.0),
    RopeScaling(kind="dynamic", factor=4.0),
    RopeScaling(kind="yarn", factor=4.0),
)
BEGIN, END = "<!-- tables of results.json, by report.py -->", "<!-- end of the tables -->"


def plots(found: dict[str, Any]) -> dict[str, str]:
    """File names and drawings of what is there."""
    drawn = {}
    if any(part in found for part, _ in CLIPS.values()):
        groups = {
            LABELS.get(group, group): {
                label: _point(0, cells[group])
                for label, (part, way) in CLIPS.items()
                if group in (cells := found.get(part, {}).get(way, {}).get("clips", {}))
            }
            for group in DRAWN
        }
        drawn["clips.svg"] = bars("Questions about clips, per cent right", groups)
    rounds = found.get("preferences", {}).get("rounds")
    if rounds:
        last = max(len(rounds) - 1, 1)
        series = {
            label: [
                (number / last, mean(one[name]), min(one[name]), max(one[name]))
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
        seen = lengths(found)
        first, last = math.log2(seen[0]), math.log2(seen[-1])
        places = {frames: (math.log2(frames) - first) / max(last - first, 1) for frames in seen}
        ticks = {place: str(frames) for frames, place in places.items()}
        for kind, group in (
            ("plain", "all"),
            ("plain", "motion"),
            ("stretched", "all"),
            ("stretched", "motion"),
        ):
            ropes = {name_of(rope): dict.fromkeys(seen, rope) for rope in PLOTTED}
            series = {
                label: [
                    _point(place, cell)
                    for frames, place in places.items()
                    if (cell := read(found, kind, frames, of[frames], group))
                ]
                for label, of in (ropes | {"automatic rule": {n: automatic(n) for n in seen}}).items()
            }
            title = f"{LABELS.get(group, group).capitalize()}, per cent right ({kind})"
            drawn[f"frames-{kind}-{group}.svg"] = lines(title, series, ticks=ticks, below="frames")
    return drawn


def _point(place: float, cell: Cell) -> Point:
    return place, cell["mean"], cell["low"], cell["high"]


def filled(text: str, found: dict[str, Any]) -> str:
    """The README with the tables of these results between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(found)}\n\n{END}{rest.split(END)[1]}"


def gathered(files: list[Path]) -> dict[str, Any]:
    """The parts of several runs, each with the settings of its own."""
    found: dict[str, Any] = {}
    for file in files:
        run = json.loads(file.read_text(encoding="utf-8"))
        parts = {name: part for name, part in run.items() if isinstance(part, dict) and "log" in part}
        found |= {name: {"settings": run["settings"]} | part for name, part in parts.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="*", help="results.json of runs")
    parser.add_argument("--parts", nargs="+", help="take only these from the runs, and keep all others")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the tables differ")
    given = parser.parse_args()
    results, readme = HERE / "results.json", HERE / "README.md"
    if given.runs:
        found = gathered(given.runs)
        if given.parts:
            kept = json.loads(results.read_text(encoding="utf-8"))
            found = kept | {name: found[name] for name in given.parts}
        write_whole(results, found)
    found = json.loads(results.read_text(encoding="utf-8"))
    text = readme.read_text(encoding="utf-8")
    wanted = {readme: filled(text, found)} | {HERE / name: svg for name, svg in plots(found).items()}
    stale = [path for path, value in wanted.items() if not path.exists() or path.read_text() != value]
    if given.check and stale:
        sys.exit(f"not what results.json says: {', '.join(path.name for path in stale)}; run report.py")
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")


if __name__ == "__main__":
    main()
