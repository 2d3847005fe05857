"""The toy world's examination: fresh scenes on real files.

Every scene is written with a codec, read back, sampled and answered greedily, as a user's clip is. An answer
counts when it is the truth to the letter.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image as Pillow

from llava_next_video.assistant import VideoAssistant
from llava_next_video.errors import ConfigError
from llava_next_video.evaluate.folder import alone, freeze
from llava_next_video.evaluate.manifest import Manifest, of_code, of_sampling, refuse_change
from llava_next_video.evaluate.scores import Score
from llava_next_video.judging import Ledger
from llava_next_video.media import Picture, Sampling, read_clip, read_image
from llava_next_video.messages import Image, Video
from llava_next_video.processing.pictures import tile_side
from llava_next_video.size import Size
from llava_next_video.world import Question, Scene, ask, facts, film, read_facts, write_picture
from llava_next_video.world.write import Film, clip_scene, picture_scene

NUMBERS = ("no object", "1 object", "2 objects", "3 objects")
PICTURES, BLURRED = "pictures", "pictures without tiles"
LONGEST_ANSWER = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A medium with all that is asked about it; it is made, in a folder, when it is due."""

    id: str
    group: str
    scene: Scene
    questions: tuple[Question, ...]
    make: Callable[[Path], Image | Video]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldReport:
    """Scores by group (number of objects, or kind of picture) and question family.

    `caption_facts` are the facts that captions state: right ones of all that are true or were said.
    """

    seed: int
    scores: Mapping[str, Mapping[str, Score]]
    caption_facts: Mapping[str, Score]

    def overall(self, group: str) -> Score:
        """All families of a group together."""
        return _sum(self.scores[group].values())

    def table(self) -> str:
        """The scores as a Markdown table with 95 % intervals."""
        lines = ["| group | family | right / asked | share | 95 % |", "|---|---|---|---|---|"]
        for group, families in self.scores.items():
            lines.append(_row(group, "**all**", self.overall(group)))
            lines += [_row(group, family, families[family]) for family in sorted(families)]
            if group in self.caption_facts:
                lines.append(_row(group, "caption facts", self.caption_facts[group]))
        return "\n".join(lines)

    def as_record(self) -> dict[str, object]:
        """The counts as plain JSON values: [right, asked]."""
        return {
            "seed": self.seed,
            "scores": {
                group: {family: [score.right, score.asked] for family, score in families.items()}
                for group, families in self.scores.items()
            },
            "caption_facts": {group: [s.right, s.asked] for group, s in self.caption_facts.items()},
        }


def examine_world(
    assistant: VideoAssistant,
    *,
    clips: int,
    pictures: int = 0,
    seed: int,
    frames: int = 8,
    told: Callable[[int, int], None] = lambda done, wanted: None,
    kept: Ledger | None = None,
) -> WorldReport:
    """Ask everything about so many fresh clips (a tenth of them empty, the rest 1 to 3 objects) and pictures.

    Pictures are asked about twice: as they are, and with the detail taken away that only tiles show (shrunk
    to one tile and enlarged again). `told` is called with the number of answers there are, and that are
    wanted. What `kept` has an answer to is not asked again; it gets every new answer (`kept_answers`).

    Raises:
        ConfigError: Nothing to examine.
    """
    if clips < 0 or pictures < 0 or clips + pictures == 0:
        raise ConfigError(f"expected clips or pictures to examine, got {clips} and {pictures}")
    subjects = [*_clips(clips, seed, frames), *_pictures(pictures, seed, _tile(assistant))]
    said = {(row["id"], row["part"]): str(row["answer"]) for row in (kept.rows if kept else ())}
    asked = [(subject, part) for subject in subjects for part in range(len(subject.questions))]
    todo = [(subject, part) for subject, part in asked if (subject.id, part) not in said]
    told(len(asked) - len(todo), len(asked))
    with tempfile.TemporaryDirectory(prefix="world-examination-") as folder:
        answers = assistant.ask_many(_posed(todo, Path(folder)), frames=frames, max_new_tokens=LONGEST_ANSWER)
        for number, ((subject, part), answer) in enumerate(zip(todo, answers, strict=True), start=1):
            said[subject.id, part] = answer.text
            if kept is not None:
                kept.add(_line(subject, part, answer.text))
            told(len(asked) - len(todo) + number, len(asked))
    return _marked(seed, subjects, said)


def world_manifest(*, seed: int, frames: int, model: Manifest) -> Manifest:
    """What an answer about the world depends on; how many clips there are is no part of it."""
    return {
        "seed": seed,
        "sampler": of_sampling(Sampling(frames=frames)),
        "model": model,
        "code": of_code(),
    }


@contextlib.contextmanager
def kept_answers(path: Path, manifest: Manifest) -> Iterator[Ledger]:
    """The answers in a file, to go on with while this lasts; their manifest is put beside it.

    Raises:
        ConfigError: It was begun with another manifest or holds something else, or another process writes it.
    """
    frozen = path.with_name(f"{path.name}.manifest.json")
    with alone(path, otherwise="give another --answers"):
        begun = path.stat().st_size > 0
        if begun and not frozen.exists():
            raise ConfigError(
                f"{path} has no {frozen.name} beside it, so nobody knows what its lines depend on; give "
                "another --answers"
            )
        refuse_change(freeze(frozen, manifest, replace=not begun), manifest, path, option="--answers")
        yield _ledger(path)


def _ledger(path: Path) -> Ledger:
    try:
        ledger = Ledger(path)
    except ValueError as error:
        raise ConfigError(
            f"{path} holds a line that is no JSON; repair it, or give another --answers"
        ) from error
    for number, row in enumerate(ledger.rows, start=1):
        missing = {"id", "part", "answer"} - row.keys()
        if missing:
            raise ConfigError(
                f"{path}:{number}: {' and '.join(sorted(missing))} missing; repair it, or give "
                "another --answers"
            )
    return ledger


def _clips(count: int, seed: int, frames: int) -> Iterator[Subject]:
    for number in range(count):
        things = 0 if number % 10 == 9 else 1 + number % 3
        scene, how, dice = clip_scene(seed, number, things)
        yield Subject(
            id=f"clip-{number:06d}",
            group=NUMBERS[things],
            scene=scene,
            questions=tuple(ask(scene, dice)),
            make=partial(_filmed, scene, how, frames),
        )


def _pictures(count: int, seed: int, tile: int) -> Iterator[Subject]:
    for number in range(count):
        scene, size, dice = picture_scene(seed, number)
        questions = tuple(ask(scene, dice))
        for group, name, shrunk in ((PICTURES, "image", None), (BLURRED, "blurred", tile)):
            yield Subject(
                id=f"{name}-{number:06d}",
                group=group,
                scene=scene,
                questions=questions,
                make=partial(_drawn, scene, size, shrunk),
            )


def _filmed(scene: Scene, how: Film, frames: int, folder: Path) -> Video:
    return Video(source=read_clip(film(scene, folder / "clip.mp4", how), Sampling(frames=frames)))


def _drawn(scene: Scene, size: Size, tile: int | None, folder: Path) -> Image:
    """A picture; with a `tile`, without the detail that is finer than that many pixels a side."""
    picture = read_image(write_picture(scene, folder / "picture.png", size))
    return Image(source=picture.image if tile is None else _without_detail(picture, tile))


def _posed(todo: Iterable[tuple[Subject, int]], folder: Path) -> Iterator[tuple[Image | Video, str]]:
    """Media with questions; each medium is made once, when its first question is due."""
    for subject, together in itertools.groupby(todo, key=lambda one: one[0]):
        medium = subject.make(folder)
        for _, part in together:
            yield medium, subject.questions[part].text


def _line(subject: Subject, part: int, answer: str) -> Mapping[str, object]:
    question = subject.questions[part]
    return {
        "id": subject.id,
        "part": part,
        "group": subject.group,
        "family": question.family,
        "question": question.text,
        "truth": question.answer,
        "answer": answer,
    }


def _marked(seed: int, subjects: Iterable[Subject], said: Mapping[tuple[str, int], str]) -> WorldReport:
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    stated: dict[str, list[bool]] = defaultdict(list)
    for subject in subjects:
        for part, question in enumerate(subject.questions):
            answer = said[subject.id, part]
            right[subject.group][question.family].append(answer == question.answer)
            if "caption" in question.family and subject.scene.things and not subject.scene.still:
                stated[subject.group] += judged(answer, subject.scene)
    return WorldReport(
        seed=seed,
        scores={
            group: {name: _score(marks) for name, marks in by.items()} for group, by in sorted(right.items())
        },
        caption_facts={group: _score(marks) for group, marks in stated.items()},
    )


def _without_detail(picture: Picture, tile: int) -> Pillow.Image:
    small = picture.image.resize((tile, tile), Pillow.Resampling.BICUBIC)
    return small.resize(picture.image.size, Pillow.Resampling.BICUBIC)


def _tile(assistant: VideoAssistant) -> int:
    """Side in pixels of what the vision tower sees."""
    return tile_side(assistant.processor.image_processor.settings())


def judged(text: str, scene: Scene) -> list[bool]:
    """One mark for each fact that is true or was said; right are those that are both."""
    true, said = facts(scene), read_facts(text)
    return [fact in said for fact in true] + [False for fact in said if fact not in true]


def _score(marks: list[bool]) -> Score:
    return Score(right=sum(marks), asked=len(marks))


def _sum(scores: Iterable[Score]) -> Score:
    listed = list(scores)
    return Score(right=sum(one.right for one in listed), asked=sum(one.asked for one in listed))


def _row(group: str, family: str, score: Score) -> str:
    low, high = score.interval
    share = f"{score.share:.1%} | {low:.1%} to {high:.1%}"
    return f"| {group} | {family} | {score.right} / {score.asked} | {share} |"
