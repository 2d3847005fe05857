"""Conversations about a scene as packed ids: many dialogues behind one clip, none sees another."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from llava_next_video.convert.tokenizer import byte_level_bpe
from llava_next_video.world.imagine import random_detail, random_scene
from llava_next_video.world.questions import Question, ask
from llava_next_video.world.scene import Scene

VOCABULARY, END, UNKNOWN = 768, 2, -100
# How eagerly a family is taken when not all questions fit: what is learnt late is asked often.
EAGERNESS = {
    "choice": 1.2, "count": 0.35, "existence": 0.6, "shape": 0.4, "colour": 0.5, "yes or no": 0.8,
    "caption": 0.9, "detailed caption": 0.25, "action": 2.0, "direction": 2.0, "position": 1.8,
    "order": 2.0, "who": 1.5, "place": 1.5, "size": 1.0, "pattern": 2.5,
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


def choose(scene: Scene, rng: random.Random, words: Words, room: int, families=None) -> list[list[Question]]:
    """Dialogues of one to three turns that fit into so many tokens."""
    asked = ask(scene, rng, families=families)
    asked.sort(key=lambda q: rng.random() ** (1 / EAGERNESS[q.family]), reverse=True)
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


def logits_of(network, words: Words, visual: Tensor, text: Packed) -> Tensor:
    """What the network says wherever the assistant speaks, in row order."""
    embedded = network.model.language_model.embed_tokens
    head = embedded(torch.tensor(words.head)).expand(len(visual), -1, -1)
    hidden = torch.cat([head, visual, embedded(text.ids)], 1)
    before = head.shape[1] + visual.shape[1]
    numbers = torch.cat([torch.zeros(len(visual), before, dtype=torch.long), text.dialogues], 1)
    positions = torch.cat([torch.arange(before).expand(len(visual), -1), text.positions], 1)
    order = torch.arange(before + text.ids.shape[1])
    same = (numbers[:, None, :] == 0) | (numbers[:, :, None] == numbers[:, None, :])
    mask = ((order[:, None] >= order[None, :]) & same)[:, None]
    language = network.model.language_model
    spoken = language(inputs_embeds=hidden, attention_mask=mask, position_ids=positions, use_cache=False)
    return network.lm_head(spoken.last_hidden_state[:, before:][text.labels != UNKNOWN])
