"""Labels cover what the assistant spoke, and nothing else."""

import pytest
from transformers import PreTrainedTokenizerFast

from llava_next_video.convert.tokenizer import SMALL_TALK, byte_level_bpe
from llava_next_video.data.encode import IGNORED, Encoded, TextEncoder, expanded_length, shortened
from llava_next_video.data.packing import pack, pack_groups, shared_front
from llava_next_video.data.record import Place, Record, bare
from llava_next_video.errors import ConfigError, DataError
from llava_next_video.messages import Image, Part, Text, Turn, Video
from llava_next_video.processing import chat_template

TEMPLATES = ["vicuna", "mistral", "chatml", "chatml_direct", "qwen", "plain"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_level_bpe([SMALL_TALK], vocabulary=400)


def encoder(tokenizer: PreTrainedTokenizerFast, template: str = "vicuna") -> TextEncoder:
    return TextEncoder(tokenizer, chat_template(template), image_token="<image>", video_token="<video>")


def record(*said: str, media: tuple[Part, ...] = (Video(source="a.mp4"),), system: str = "") -> Record:
    turns = [Turn(role="system", parts=(Text(text=system),))] if system else []
    for number, text in enumerate(said):
        parts: tuple[Part, ...] = (*(media if number == 0 else ()), Text(text=text))
        turns.append(Turn(role="assistant" if number % 2 else "user", parts=parts))
    return Record(id="r", turns=tuple(turns), place=Place(file="rows.json", line=3))


def learned(encoded: Encoded, tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer.decode([label for label in encoded.labels if label != IGNORED])


@pytest.mark.parametrize("template", TEMPLATES[:-1])
def test_labels_cover_only_what_the_assistant_spoke(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    said = ("What moves?", "A red circle.", "And where to?", "To the left.")
    encoded = encoder(tokenizer, template).encode(record(*said))
    text = learned(encoded, tokenizer)
    end = text[text.index("A red circle.") + len("A red circle.") : text.index("To the left.")]
    assert text.replace(" ", "") == f"Aredcircle.{end}Totheleft.{end}".replace(" ", "")
    assert end.strip() in ("</s>", "<|im_end|>")
    assert all(label in (IGNORED, token) for token, label in zip(encoded.ids, encoded.labels, strict=True))


def test_the_plain_template_learns_the_caption_behind_the_bare_clip(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    encoded = encoder(tokenizer, "plain").encode(bare(record("Describe it.", "A red circle.")))
    assert learned(encoded, tokenizer) == "A red circle.\n"
    assert tokenizer.decode(encoded.ids) == "<s><video>A red circle.\n"


@pytest.mark.parametrize("template", TEMPLATES[:-1])
def test_what_is_learned_starts_where_generation_would_start(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    whole = encoder(tokenizer, template).encode(record("What moves?", "A red circle."))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What moves?"}]}],
        chat_template=chat_template(template),
        add_generation_prompt=True,
        tokenize=False,
    )
    begins = not prompt.startswith(tokenizer.bos_token)
    ids = tokenizer(prompt, add_special_tokens=begins)["input_ids"]
    first = next(number for number, label in enumerate(whole.labels) if label != IGNORED)
    assert list(whole.ids[:first]) == ids


def test_placeholders_inside_words_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match=r"rows\.json:3: 2 placeholders for 1 media"):
        encoder(tokenizer).encode(record("Is this a <video> tag?", "Yes."))


def test_a_template_without_generation_spans_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    bare = "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}"
    silent = TextEncoder(tokenizer, bare, image_token="<image>", video_token="<video>")
    with pytest.raises(DataError, match=r"rows\.json:3: .*generation"):
        silent.encode(record("Why?", "So.", media=()))


def test_a_tokenizer_without_placeholders_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match="no token '<clip>'"):
        TextEncoder(tokenizer, "", image_token="<image>", video_token="<clip>")


def test_shortening_cuts_words_at_the_end_and_never_a_medium(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = encoder(tokenizer)
    encoded = whole.encode(record("What moves?", "A red circle.", "And where to?", "To the left."))
    assert expanded_length(encoded, [144]) == len(encoded.ids) + 143
    cut = shortened(encoded, 3, whole.placeholders)
    assert cut is not None
    assert cut.ids == encoded.ids[: len(cut.ids)]
    assert len(cut.ids) <= len(encoded.ids) - 3
    assert cut.labels[-1] != IGNORED
    assert shortened(encoded, len(encoded.ids) - 2, whole.placeholders) is None
    last = encoder(tokenizer).encode(
        Record(
            id="r",
            turns=(
                Turn(role="user", parts=(Text(text="Hello"),)),
                Turn(role="assistant", parts=(Text(text="Hi"),)),
                Turn(role="user", parts=(Image(source="a.png"), Text(text="And?"))),
                Turn(role="assistant", parts=(Text(text="B"),)),
            ),
            place=Place(file="rows.json", line=1),
        )
    )
    assert shortened(last, len(last.ids) // 2, whole.placeholders) is None


def test_questions_about_one_clip_share_everything_up_to_the_clip(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    make = encoder(tokenizer)
    samples = [
        make.encode(record("What moves?", "A circle.")),
        make.encode(record("Where to?", "Left.", "Why?", "So.")),
    ]
    front = shared_front(samples, tuple(make.placeholders))
    assert tokenizer.decode(samples[0].ids[:front]).endswith("<video>")
    packed = pack(samples, front)
    for number, sample in enumerate(samples, start=1):
        seen = [i for i, branch in enumerate(packed.branches) if branch in (0, number)]
        assert [packed.ids[i] for i in seen] == list(sample.ids)
        assert [packed.labels[i] for i in seen] == list(sample.labels)
    assert shared_front([samples[0], make.encode(record("Q", "A", system="Be brief."))], (front,)) == 0


def test_packs_fill_up_to_their_limit(tokenizer: PreTrainedTokenizerFast) -> None:
    make = encoder(tokenizer)
    samples = [make.encode(record("What moves?", "A circle.")) for _ in range(5)]
    alone = expanded_length(samples[0], [72])
    front = shared_front(samples, tuple(make.placeholders)) + 71
    groups = pack_groups(samples, tuple(make.placeholders), [72], limit=alone + 2 * (alone - front))
    assert groups == [[0, 1, 2], [3, 4]]
    assert pack_groups(samples, tuple(make.placeholders), [72], limit=1) == [[0], [1], [2], [3], [4]]
