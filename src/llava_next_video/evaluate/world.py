"""The toy world's examination: fresh scenes on real files.

Every scene is written with a codec, read back, sampled and answered greedily, as a user's clip is. An answer
counts when it is the truth to the letter.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pillow

from llava_next_video.assistant import VideoAssistant
from llava_next_video.errors import ConfigError
from llava_next_video.evaluate.scores import Score
from llava_next_video.media import Picture, Sampling, read_clip, read_image
from llava_next_video.messages import Image, Video
from llava_next_video.processing.pictures import tile_side
from llava_next_video.world import Question, Scene, ask, facts, film, read_facts, write_picture
from llava_next_video.world.write import clip_scene, picture_scene

NUMBERS = ("no object", "1 object", "2 objects", "3 objects")
PICTURES, BLURRED = "pictures", "pictures without tiles"
LONGEST_ANSWER = 80

Asked = tuple[str, Scene, Question]


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
    told: Callable[[int], None] | None = None,
    heard: Callable[[str, Question, str], None] | None = None,
) -> WorldReport:
    """Ask everything about so many fresh clips (a tenth of them empty, the rest 1 to 3 objects) and pictures.

    Pictures are asked about twice: as they are, and with the detail taken away that only tiles show (shrunk
    to one tile and enlarged again). `told` is called with the number of answers so far, `heard` with
    the group, the question and each answer.

    Raises:
        ConfigError: Nothing to examine.
    """
    if clips < 0 or pictures < 0 or clips + pictures == 0:
        raise ConfigError(f"expected clips or pictures to examine, got {clips} and {pictures}")
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    stated: dict[str, list[bool]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="world-examination-") as folder:
        asked: list[Asked] = []
        questions = _questions(Path(folder), clips, pictures, seed, _tile(assistant), frames, asked)
        answers = assistant.ask_many(questions, frames=frames, max_new_tokens=LONGEST_ANSWER)
        for number, answer in enumerate(answers):
            group, scene, question = asked[number]
            right[group][question.family].append(answer.text == question.answer)
            if "caption" in question.family and scene.things and not scene.still:
                stated[group] += judged(answer.text, scene)
            if heard is not None:
                heard(group, question, answer.text)
            if told is not None:
                told(number + 1)
    return WorldReport(
        seed=seed,
        scores={
            group: {name: _score(marks) for name, marks in by.items()} for group, by in sorted(right.items())
        },
        caption_facts={group: _score(marks) for group, marks in stated.items()},
    )


def _questions(
    folder: Path, clips: int, pictures: int, seed: int, tile: int, frames: int, asked: list[Asked]
) -> Iterator[tuple[Image | Video, str]]:
    """Media with questions; what stands behind each is noted in `asked`, in the same order."""
    for number in range(clips):
        things = 0 if number % 10 == 9 else 1 + number % 3
        scene, how, dice = clip_scene(seed, number, things)
        clip = read_clip(film(scene, folder / "clip.mp4", how), Sampling(frames=frames))
        for question in ask(scene, dice):
            asked.append((NUMBERS[things], scene, question))
            yield Video(source=clip), question.text
    for number in range(pictures):
        scene, size, dice = picture_scene(seed, number)
        picture = read_image(write_picture(scene, folder / "picture.png", size))
        questions = ask(scene, dice)
        for group, shown in ((PICTURES, picture.image), (BLURRED, _without_detail(picture, tile))):
            for question in questions:
                asked.append((group, scene, question))
                yield Image(source=shown), question.text


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
