"""Examine an exported folder on fresh clips: written as real files, read back, answered greedily.

Every clip is written with a codec, read with `read_clip` and turned into pixels by the folder's own
processor. All answers of one clip are judged in one packed pass, every word given the right words before it;
all of them are right exactly when greedy decoding is. `--generate N` asks `generate`, too, and compares.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from clips import Seen, clip_features, embed
from forward import look
from score import facts_right, interval
from text import END, UNKNOWN, Words, pack

from llava_next_video.media import Sampling, read_clip, read_image
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.world.questions import ask
from llava_next_video.world.write import clip_scene, film, picture_scene, write_picture


class Examiner:
    """A model folder with its own processor."""

    def __init__(self, folder: Path) -> None:
        self.network = LlavaNextVideoForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
        self.processor = LlavaNextVideoProcessor.from_pretrained(folder)
        self.words = Words(self.processor.tokenizer)

    def clip(self, scene, how, path: Path):
        clip = read_clip(film(scene, path, how), Sampling(frames=8))
        pixels = self.processor(text="USER: <video>\n", videos=clip.frames, return_tensors="pt")
        return pixels["pixel_values_videos"]

    def answers(self, visual, questions) -> list[bool]:
        """Which questions are answered right."""
        text = pack(
            [[[question] for question in questions]], self.words, len(self.words.head) + visual.shape[1]
        )
        spoken = text.labels != UNKNOWN
        right = torch.zeros_like(spoken)
        right[spoken] = look(self.network, self.words, visual, text)[0].argmax(-1) == text.labels[spoken]
        numbers = range(1, len(questions) + 1)
        return [bool(right[0][spoken[0] & (text.dialogues[0] == number)].all()) for number in numbers]

    def write(self, visual, question) -> str:
        """What the network writes by itself, word after word."""
        language = self.network.model.language_model
        asked = self.words.ids("\n") + self.words.ids(f"{question.text} ASSISTANT:")
        head, tail = (language.embed_tokens(torch.tensor([ids])) for ids in (self.words.head, asked))
        step, cache, written = torch.cat([head, visual, tail], 1), None, []
        while len(written) < 80:
            out = language(inputs_embeds=step, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            word = int(self.network.lm_head(out.last_hidden_state[:, -1]).argmax(-1))
            if word == END:
                break
            written.append(word)
            step = language.embed_tokens(torch.tensor([[word]]))
        return self.words.tokenizer.decode(written).strip()

    def generate(self, inputs) -> str:
        out = self.network.generate(**inputs, do_sample=False, max_new_tokens=64)
        return self.processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    out = Path(__file__).parent / "out"
    parser.add_argument("--model", type=Path, default=out / "export")
    parser.add_argument("--clips", type=int, default=500, help="for each number of things")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument(
        "--captions", type=int, default=200, help="captions written, for each number of things"
    )
    parser.add_argument("--generate", type=int, default=0)
    parser.add_argument("--seed", type=int, default=990_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    examiner = Examiner(given.model)
    marks: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    facts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    agreed = []
    with tempfile.TemporaryDirectory() as folder:
        for things, number in (
            (t, n) for t in range(4) for n in range(given.clips if t else given.clips // 10)
        ):
            scene, how, dice = clip_scene(given.seed + things, number, things)
            pixels = examiner.clip(scene, how, Path(folder) / "clip.mp4")
            features = clip_features(examiner.network.model.vision_tower, pixels)
            visual = embed(examiner.network, Seen(scenes=[scene], times=[[]], features=features))
            questions = ask(scene, dice)
            right = examiner.answers(visual, questions)
            for question, mark in zip(questions, right, strict=True):
                marks[f"clips with {things}"][question.family].append(mark)
                if question.family == "caption" and number < given.captions:
                    good, all_of_them = facts_right(examiner.write(visual, question), scene)
                    facts[f"clips with {things}"][0] += good
                    facts[f"clips with {things}"][1] += all_of_them
            if len(agreed) < given.generate and number % 3 == 0:
                prompt = f"USER: <video>\n{questions[0].text} ASSISTANT:"
                inputs = examiner.processor(
                    text=prompt,
                    return_tensors="pt",
                    add_special_tokens=True,
                    videos=[read_clip(Path(folder) / "clip.mp4", Sampling(frames=8)).frames],
                )
                answer = examiner.generate(inputs)
                agreed.append((answer == questions[0].answer) == right[0])
        for number in range(given.pictures):
            scene, size, dice = picture_scene(given.seed, number)
            picture = read_image(write_picture(scene, Path(folder) / "picture.png", size)).image
            asked = ask(scene, dice)
            whole = examiner.processor(text="USER: <image>\n", images=picture, return_tensors="pt")
            for name, tiles in (("pictures", True), ("pictures without tiles", False)):
                visual = image_tokens(examiner.network, whole, tiles)
                right = examiner.answers(visual, asked)
                for question, mark in zip(asked, right, strict=True):
                    marks[name][question.family].append(mark)
    report(marks, facts)
    if agreed:
        print(f"generate agrees with the packed pass: {sum(agreed)} of {len(agreed)}")
    if given.json:
        shares = {g: {f: [sum(m), len(m)] for f, m in families.items()} for g, families in marks.items()}
        given.json.write_text(json.dumps({"marks": shares, "caption facts": facts}, indent=1))


def image_tokens(network, inputs, tiles: bool) -> torch.Tensor:
    """The visual tokens of one picture; without tiles they show no more than the base view."""
    pixels = inputs["pixel_values"]
    if not tiles:
        base = pixels[:, :1]
        big = torch.nn.functional.interpolate(base[0], scale_factor=2, mode="bilinear")[0]
        side = base.shape[-1]
        blurred = [big[:, y : y + side, x : x + side] for y in (0, side) for x in (0, side)]
        pixels = torch.cat([base, torch.stack(blurred)[None]], 1)[:, : pixels.shape[1]]
    features = network.model.get_image_features(pixels, image_sizes=inputs["image_sizes"])
    features = getattr(features, "pooler_output", features)
    return features[0][None] if isinstance(features, (list, tuple)) else features[None]


def report(marks, facts) -> None:
    """One table: right of asked, share, interval of 95 %."""
    for group, families in marks.items():
        rows = {
            "all": [mark for found in families.values() for mark in found],
            **dict(sorted(families.items())),
        }
        for family, found in rows.items():
            low, high = interval(sum(found), len(found))
            share = sum(found) / len(found)
            print(
                f"| {group} | {family} | {sum(found)}/{len(found)} | {share:.1%} | {low:.1%} - {high:.1%} |"
            )
        if group in facts:
            good, every = facts[group]
            low, high = interval(good, every)
            print(
                f"| {group} | caption facts | {good}/{every} | {good / every:.1%} | {low:.1%} - {high:.1%} |"
            )


if __name__ == "__main__":
    main()
