"""What results.json holds, as tables in Markdown."""

from __future__ import annotations

from typing import Any

from ropes import WAYS, automatic, least, name_of, tried

from llava_next_video.long_video import RopeScaling

SHOWN = ("colour", "shape", "count", "existence", "pattern", "places", "motion", "order", "captions")
DRAWN = ("frames", "places", "motion", "order", "captions")
CLIPS = {
    "pictures alone": ("clips-alone", "before"),
    "then clips alone": ("clips-alone", "alone"),
    "pictures alone, second call": ("clips-joint", "before"),
    "then both, separate batches": ("clips-joint", "separate"),
    "then both, mixed batches": ("clips-joint", "mixed"),
}
"""What (b) compares, and the part and the way that it stands under."""
CAPTIONS = {
    "right": "facts told, of the true ones",
    "missing": "facts missing",
    "wrong": "wrong facts, per true one",
    "judge": "the judge's share",
    "exact": "captions right to the letter",
    "words": "words",
}
LABELS = {"all": "all questions", "frames": "what frames show"}
QUESTIONS = {
    "all": "all, captions among them",
    "frames": "what frames show",
    "places": "places",
    "motion": "motion",
    "order": "order",
}
KINDS = ("plain", "stretched")

Cell = dict[str, Any]
Found = dict[str, Any]


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


def tables(found: Found) -> str:
    """All tables of what is there."""
    makers = (_pictures, _clips, _preferences, _rounds, _lengths, _steps)
    parts = [make(found) for make in makers]
    return "\n\n".join(part for part in parts if part)


def _pictures(found: Found) -> str:
    rows = []
    for label, name in (("with tiles (AnyRes)", "pictures-tiles"), ("base view only", "pictures-base")):
        for medium in ("pictures", "clips"):
            if cells := found.get(name, {}).get(medium):
                seen = "clips, zero-shot" if medium == "clips" else "pictures"
                rows.append([label, seen, *(told(cells.get(group)) for group in SHOWN)])
    if not rows:
        return ""
    for medium in ("pictures", "clips"):
        if cells := found.get("pictures-tiles", {}).get(medium):
            guesses = [f"{cells[group]['guess']:.1f}" if group in cells else "-" for group in SHOWN]
            rows.append(["guessing", medium, *guesses])
    return "### (a) From pictures alone\n\n" + table(["pictures are seen", "asked about", *SHOWN], rows)


def _clips(found: Found) -> str:
    if not any(name.startswith("clips") for name in found):
        return ""
    parts = []
    for medium in ("clips", "pictures"):
        rows, groups = [], ["all", *(group for group in SHOWN if _asked(medium, group))]
        for label, (part, way) in CLIPS.items():
            if cells := found.get(part, {}).get(way, {}).get(medium):
                steps = next((log["steps"] for log in found[part]["log"] if log["stage"] == way), 0)
                rows.append([label, f"{steps:,}", *(told(cells.get(group)) for group in groups)])
        if cells := found.get("clips-joint", {}).get("mixed", {}).get(medium):
            rows.append(["guessing", "", *(f"{cells[group]['guess']:.1f}" for group in groups)])
        parts.append(f"Asked about {medium}:\n\n" + table(["learnt from", "steps", *groups], rows))
    return "### (b) Fine-tuned on clips\n\n" + "\n\n".join(parts)


def _asked(medium: str, group: str) -> bool:
    return group not in (("pattern",) if medium == "clips" else ("motion", "order"))


def _preferences(found: Found) -> str:
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


def _rounds(found: Found) -> str:
    rounds = found.get("preferences", {}).get("rounds")
    if not rounds:
        return ""
    rows = []
    for number, one in enumerate(rounds, 1):
        means = [f"{mean(one[name]):.1f}" for name in ("judge", "right", "missing", "wrong", "words")]
        learnt = [f"{one[name]:.2f}" if name in one else "-" for name in ("accuracy", "margin")]
        rows.append([str(number), str(round(mean(one["pairs"]))), *means, *learnt])
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


def mean(values: list[float]) -> float:
    """Of the networks."""
    return sum(values) / len(values)


def read(found: Found, kind: str, frames: int, rope: RopeScaling | None, group: str = "all") -> Cell | None:
    """A group of questions about clips of so many frames under a scaling."""
    for row in found.get("lengths", {}).get("rows", []):
        if (row["kind"], row["frames"], row["rope"]) == (kind, frames, name_of(rope)):
            return row["cells"].get(group)
    return None


def lengths(found: Found) -> list[int]:
    """How many frames clips had that were read."""
    return sorted({row["frames"] for row in found.get("lengths", {}).get("rows", [])})


def compared(found: Found, kind: str, frames: int) -> list[str]:
    """The rule's scaling and share, those of none and of linear, what it loses, and the best of all."""
    ropes = [automatic(frames), None, least(frames, "linear")]
    cells = [read(found, kind, frames, rope) for rope in ropes]
    if None in cells:
        return ["-"] * 6
    rule, *others = [cell["mean"] for cell in cells if cell]
    tried = [row for row in found["lengths"]["rows"] if (row["kind"], row["frames"]) == (kind, frames)]
    best = max(tried, key=lambda row: row["cells"]["all"]["mean"])
    return [
        f"{name_of(ropes[0])}: {told(cells[0])}",
        told(cells[1]),
        f"{name_of(ropes[2])}: {told(cells[2])}",
        f"{max(others) - rule:.1f}",
        f"{best['rope']}: {told(best['cells']['all'])}",
        f"{best['cells']['all']['mean'] - rule:.1f}",
    ]


def _lengths(found: Found) -> str:
    part = found.get("lengths", {})
    if not part.get("rows"):
        return ""
    parts = [f"### (d) More frames than in training (4 to 16; {part['trained']} tokens)"]
    head = ["frames", "automatic rule", "none", "linear, least that fits"]
    head += ["lost to the better of these two", "best of all tried", "lost to it"]
    for kind in KINDS:
        rows = [[str(frames), *compared(found, kind, frames)] for frames in lengths(found)]
        parts.append(f"`{kind}`, all questions:\n\n" + table(head, rows))
    for kind in KINDS:
        parts.append(f"`{kind}`, all questions, everything that was tried:\n\n" + _all_tried(found, kind))
    rows = []
    for kind in KINDS:
        for frames in (frames for frames in lengths(found) if frames > 8):
            shown = dict.fromkeys([None, *(least(frames, way) for way in WAYS), automatic(frames)])
            for rope in shown:
                cells = [told(read(found, kind, frames, rope, group)) for group in DRAWN]
                rows.append([kind, str(frames), name_of(rope), *cells])
    made_of = table(["networks", "frames", "scaling", *(LABELS.get(one, one) for one in DRAWN)], rows)
    return "\n\n".join([*parts, f"What that is made of, from 16 frames on:\n\n{made_of}"])


def _all_tried(found: Found, kind: str) -> str:
    """Scalings by frames; what the rule takes stands out."""
    seen = lengths(found)
    ropes = dict.fromkeys(rope for frames in reversed(seen) for rope in tried(frames))
    rows = []
    for rope in ropes:
        cells = {frames: told(read(found, kind, frames, rope)) for frames in seen}
        chosen = {frames: f"**{cell}**" for frames, cell in cells.items() if automatic(frames) == rope}
        if set(cells.values()) != {"-"}:
            rows.append([name_of(rope), *(cells | chosen).values()])
    return table(["scaling", *(f"{frames} frames" for frames in seen)], rows)


def _steps(found: Found) -> str:
    """How much was learnt: stages in their order, those of one name together."""
    rows: dict[tuple[str, str], list[Any]] = {}
    for name, part in found.items():
        settings = part["settings"]
        for log in part["log"]:
            row = rows.setdefault((name, log["stage"]), [settings["device"], settings["batch"], 0, 0.0])
            row[2] += log["steps"]
            row[3] += log.get("seconds", 0.0)
    shown = [
        [name, stage, device, str(batch), f"{steps:,}", f"{seconds:.0f}"]
        for (name, stage), (device, batch, steps, seconds) in rows.items()
    ]
    head = ["part", "stage", "device", "batch", "steps", "seconds"]
    return "### Steps\n\n" + table(head, shown)
