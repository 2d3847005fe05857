"""Conversations about a scene as packed ids: many dialogues behind one clip, none sees another."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
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

    def dialogue(self, questions: list[Question]) -> tuple[list[int], list[int]]:
        """Ids after the visual tokens, and the same with only what the assistant says."""
        ids, labels = [], []
        for index, question in enumerate(questions):
            asked = [*self.ids("USER: " if index else "\n"), *self.ids(f"{question.text} ASSISTANT:")]
            if index:
                asked = self.ids(f"USER: {question.text} ASSISTANT:")
            said = [*self.ids(f" {question.answer}"), END]
            ids += asked + said
            labels += [UNKNOWN] * len(asked) + said
        return ids, labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Text behind each clip: ids, what to say next (-100: nothing), positions, number of the dialogue."""

    ids: Tensor
    labels: Tensor
    positions: Tensor
    dialogues: Tensor


def choose(
    scene: Scene, rng: random.Random, words: Words, room: int, focus: float = 0.0
) -> list[list[Question]]:
    """Dialogues of one to three turns that fit into so many tokens; a share with `FOCUS`."""
    asked = ask(scene, rng)
    eager = {**EAGERNESS, **FOCUS} if rng.random() < focus else EAGERNESS
    asked.sort(key=lambda q: rng.random() ** (1 / eager[q.family]), reverse=True)
    dialogues: list[list[Question]] = []
    for question in asked:
        length = len(words.ids(f"{question.text} ASSISTANT:")) + len(words.ids(f" {question.answer}")) + 4
        if length > room:
            continue
        room -= length
        joined = dialogues and len(dialogues[-1]) < 3 and rng.random() < 0.12
        dialogues[-1].append(question) if joined else dialogues.append([question])
    return dialogues


def pack(all_dialogues: list[list[list[Question]]], words: Words, first: int) -> Packed:
    """Rows of dialogues; positions start anew at `first` in each."""
    rows = []
    for dialogues in all_dialogues:
        ids, labels, positions, numbers = [], [], [], []
        for number, questions in enumerate(dialogues, 1):
            words_in, said = words.dialogue(questions)
            # The last word predicts nothing, and every label is what comes next.
            ids += words_in[:-1]
            labels += said[1:]
            positions += range(first, first + len(words_in) - 1)
            numbers += [number] * (len(words_in) - 1)
        rows.append((ids, labels, positions, numbers))
    longest = -(-max(len(row[0]) for row in rows) // 8) * 8
    filled = [
        torch.tensor([[*row[part], *([empty] * (longest - len(row[part])))] for row in rows])
        for part, empty in enumerate((0, UNKNOWN, 0, -1))
    ]
    return Packed(ids=filled[0], labels=filled[1], positions=filled[2], dialogues=filled[3])


def answer_loss(logits: Tensor, text: Packed) -> Tensor:
    """Cross entropy in which long answers do not drown a yes or no: one word of n weighs n^-0.7."""
    spoken = text.labels != UNKNOWN
    rows = torch.arange(len(text.labels))[:, None].expand_as(text.labels)[spoken]
    dialogue = rows * (int(text.dialogues.max()) + 1) + text.dialogues[spoken]
    weights = torch.bincount(dialogue)[dialogue].float() ** -0.7
    losses = functional.cross_entropy(logits, text.labels[spoken], reduction="none")
    return (losses * weights).sum() / weights.sum()


def save(module: nn.Module, path: Path) -> None:
    """Write the weights so that a crash leaves the last good file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(module.state_dict(), part)
    part.replace(path)
