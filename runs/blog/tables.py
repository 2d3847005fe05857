"""What results.json holds, as tables in Markdown."""

from __future__ import annotations

from typing import Any

SHOWN = ("colour", "shape", "count", "existence", "pattern", "places", "motion", "order", "captions")
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
LABELS = {"all": "all questions", "frames": "what frames show"}
QUESTIONS = {
    "all": "all, captions among them",
    "frames": "what frames show",
    "places": "places",
    "motion": "motion",
    "order": "order",
}
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
    for medium in ("pictures", "clips"):
        if cells := found.get("pictures-tiles", {}).get(medium):
            guesses = [f"{cells[group]['guess']:.1f}" if group in cells else "-" for group in SHOWN]
            rows.append(["guessing", medium, *guesses])
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
    return group not in (("pattern",) if medium == "clips" else ("motion", "order"))


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


def read(found: dict[str, Any], kind: str, frames: int, factor: float, group: str = "all") -> Cell | None:
    """A group of questions about clips of so many frames under a factor."""
    for row in found.get("lengths", {}).get("rows", []):
        if (row["kind"], row["frames"], row["factor"]) == (kind, frames, factor):
            return row["cells"].get(group)
    return None


def automatic(found: dict[str, Any]) -> dict[int, float]:
    """The factor that the product's rule takes, for each number of frames."""
    return {row["frames"]: row["factor"] for row in found["lengths"]["rows"] if row["automatic"]}


def lost(found: dict[str, Any], kind: str, frames: int) -> list[str]:
    """Points that the automatic rule loses to no scaling, and to the best of the factors."""
    rule, none = (read(found, kind, frames, factor) for factor in (automatic(found)[frames], 1.0))
    others = [cell for factor in FACTORS if (cell := read(found, kind, frames, factor))]
    if rule is None or none is None:
        return ["-", "-"]
    best = max(cell["mean"] for cell in others)
    return [f"{better - rule['mean']:.1f}" for better in (none["mean"], best)]


def _lengths(found: dict[str, Any]) -> str:
    part = found.get("lengths", {})
    if not part.get("rows"):
        return ""
    parts = [f"### (d) More frames than in training (4 to 16; {part['trained']} tokens)"]
    head = ["frames", *(f"factor {factor:g}" for factor in FACTORS)]
    head += ["automatic rule", "lost to factor 1", "lost to the best"]
    for kind in KINDS:
        rows = []
        for frames, rule in automatic(found).items():
            shares = [told(read(found, kind, frames, factor)) for factor in FACTORS]
            taken = f"{rule:g}: {told(read(found, kind, frames, rule))}"
            rows.append([str(frames), *shares, taken, *lost(found, kind, frames)])
        parts.append(f"`{kind}`, all questions:\n\n" + table(head, rows))
    rows = [
        [
            row["kind"],
            str(row["frames"]),
            f"{row['factor']:g}",
            *(told(row["cells"].get(one)) for one in DRAWN),
        ]
        for kind in KINDS
        for row in sorted(part["rows"], key=lambda row: (row["frames"], row["factor"]))
        if row["kind"] == kind and row["frames"] > 8
    ]
    made_of = table(["kind", "frames", "factor", *(LABELS.get(one, one) for one in DRAWN)], rows)
    return "\n\n".join([*parts, f"What that is made of, from 16 frames on:\n\n{made_of}"])


def _steps(found: dict[str, Any]) -> str:
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
