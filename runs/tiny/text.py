"""Conversations about a scene as packed ids: many dialogues behind one clip, none sees another."""

import random
from collections.abc import Mapping
from pathlib import Path

from transformers import AutoTokenizer

from llava_next_video.convert.tokenizer import byte_level_bpe
from llava_next_video.world.imagine import random_detail, random_scene
from llava_next_video.world.questions import Question, ask
from llava_next_video.world.scene import Scene

VOCABULARY, END, UNKNOWN = 768, 2, -100
# How eagerly a family is taken when not all questions fit: what is learnt late is asked often.
EAGERNESS = {
    "choice": 2.0, "count": 0.8, "existence": 0.9, "shape": 0.35, "colour": 1.2, "yes or no": 0.9,
    "caption": 0.9, "detailed caption": 0.35, "action": 0.9, "direction": 1.5, "position": 0.9,
    "order": 2.5, "who": 1.6, "place": 2.0, "size": 2.5, "pattern": 1.5,
}  # fmt: skip
# Once look-ups are known: long captions, letters and sizes come last of all.
LATE = {**EAGERNESS, "caption": 1.6, "detailed caption": 0.8}
SCARCE = ("choice", "size")
HEAVY = {"choice": 2.0, "size": 3.0}
"""How much a word of these answers counts beside one of others, then."""
NO_HEAVY: Mapping[str, float] = {}
# The same while look-ups by shape, doing and place are learnt, which come last.
FOCUS = {
    "choice": 3.0, "colour": 5.0, "existence": 2.0, "who": 5.0, "place": 5.0, "order": 5.0, "size": 5.0,
}  # fmt: skip


def make_tokenizer(seed: int = 0):
    """A small byte-level BPE that has read some thousand questions and answers of the world; made once."""
    if (folder := Path(__file__).parent / "out" / "tokenizer").exists():
        return AutoTokenizer.from_pretrained(folder)
    rng = random.Random(f"tokenizer {seed}")
    texts = []
    for index in range(1500):
        scene = random_detail(rng) if index % 12 == 0 else random_scene(rng, still=index % 6 == 1)
        texts.extend(f"USER: \n{q.text} ASSISTANT: {q.answer}" for q in ask(scene, rng))
    tokenizer = byte_level_bpe(texts, VOCABULARY)
    tokenizer.save_pretrained(folder)
    return tokenizer


class Words:
    """Ids of prompts, with a memory: the world says the same things again and again."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer, self.known = tokenizer, {}
        self.head = tokenizer("USER: ")["input_ids"]

    def ids(self, text: str) -> list[int]:
        found = self.known.get(text)
        if found is None:
            found = self.known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def length(self, question: Question) -> int:
        """Tokens that a question and its answer take, at most."""
        return len(self.ids(f"{question.text} ASSISTANT:")) + len(self.ids(f" {question.answer}")) + 4

    def dialogue(
        self, questions: list[Question], heavy_ones: Mapping[str, float]
    ) -> tuple[list[int], list[int], list[float]]:
        """Ids after the visual tokens, the same with only what the assistant says, and what each counts."""
        ids, labels, heavy = [], [], []
        for index, question in enumerate(questions):
            asked = [*self.ids("USER: " if index else "\n"), *self.ids(f"{question.text} ASSISTANT:")]
            if index:
                asked = self.ids(f"USER: {question.text} ASSISTANT:")
            said = [*self.ids(f" {question.answer}"), END]
            ids += asked + said
            labels += [UNKNOWN] * len(asked) + said
            heavy += [heavy_ones.get(question.family, 1.0)] * len(asked + said)
        return ids, labels, heavy


def choose(
    scene: Scene, rng: random.Random, words: Words, room: int, focus: float = 0.0
) -> list[list[Question]]:
    """Dialogues of one to three turns that fit into so many tokens; a share with `FOCUS`."""
    return _fitting(ask(scene, rng), EAGERNESS, rng, words, room, focus)


def choose_late(
    scene: Scene, rng: random.Random, words: Words, room: int, focus: float = 0.0
) -> list[list[Question]]:
    """The same when look-ups are known; a second round of questions gives twice as many of the scarce."""
    asked = ask(scene, rng)
    asked += [question for question in ask(scene, rng, captions=False) if question.family in SCARCE]
    return _fitting(asked, LATE, rng, words, room, focus)


def _fitting(
    asked: list[Question],
    eagerness: Mapping[str, float],
    rng: random.Random,
    words: Words,
    room: int,
    focus: float,
) -> list[list[Question]]:
    eager = {**eagerness, **FOCUS} if rng.random() < focus else eagerness
    asked = sorted(asked, key=lambda q: rng.random() ** (1 / eager[q.family]), reverse=True)
    dialogues: list[list[Question]] = []
    for question in asked:
        length = words.length(question)
        if length > room:
            continue
        room -= length
        joined = dialogues and len(dialogues[-1]) < 3 and rng.random() < 0.12
        dialogues[-1].append(question) if joined else dialogues.append([question])
    return dialogues


def dialogue_rows(
    dialogues: list[list[Question]], words: Words, heavy_ones: Mapping[str, float] = NO_HEAVY
) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
    """Ids, what to say next (-100: nothing), positions, numbers from 1 of dialogues, and weights.

    Positions start anew in each dialogue. One word of an answer of n weighs n^-0.7, so that long answers do
    not drown a yes or no.
    """
    ids, labels, positions, numbers, weights = [], [], [], [], []
    for number, questions in enumerate(dialogues, 1):
        words_in, said, heavy = words.dialogue(questions, heavy_ones)
        # The last word predicts nothing, and every label is what comes next.
        ids += words_in[:-1]
        labels += said[1:]
        positions += range(len(words_in) - 1)
        numbers += [number] * (len(words_in) - 1)
        spoken = sum(word != UNKNOWN for word in said)
        weights += [much * spoken**-0.7 for much in heavy[1:]]
    return ids, labels, positions, numbers, weights
