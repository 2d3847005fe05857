"""What a step computes: against transformers' own class, alone and together, packed and in pieces."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlavaNextVideoForConditionalGeneration as Reference

from llava_next_video.data.collate import Collator
from llava_next_video.data.dataset import Dropped, Example, Rules, Samples
from llava_next_video.data.decoder import Decoder
from llava_next_video.data.encode import IGNORED
from llava_next_video.data.files import read_samples
from llava_next_video.data.record import Record
from llava_next_video.errors import CapacityError, MediaError
from llava_next_video.media import Sampling
from llava_next_video.messages import Image, Text, Turn, Video
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.objectives import imitate
from llava_next_video.train.recipe import DataSettings
from llava_next_video.train.run import text_encoder

RULES = Rules(sampling=Sampling(frames=3), context=4096)


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> LlavaNextVideoProcessor:
    return LlavaNextVideoProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> LlavaNextVideoForConditionalGeneration:
    return LlavaNextVideoForConditionalGeneration.from_pretrained(checkpoint).train()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture(scope="module")
def records(media: Path) -> list[Record]:
    return [sample for sample in read_samples(media / "samples.json") if isinstance(sample, Record)]


class Maker:
    """Makes items of records under rules."""

    def __init__(self, processor: LlavaNextVideoProcessor, config: object, decoder: Decoder) -> None:
        self.processor, self.config, self.decoder = processor, config, decoder

    def samples(self, records: Sequence[Record], rules: Rules = RULES) -> Samples:
        encoder = text_encoder(self.processor, DataSettings())
        return Samples(
            records,
            encoder=encoder,
            processor=self.processor,
            layouts=self.config,
            rules=rules,
            decoder=self.decoder,
        )

    def items(self, records: Sequence[Record], rules: Rules = RULES) -> list[Example | Dropped]:
        samples = self.samples(records, rules)
        return [samples[number] for number in range(len(samples))]


@pytest.fixture(scope="module")
def make(
    processor: LlavaNextVideoProcessor, model: LlavaNextVideoForConditionalGeneration, decoder: Decoder
) -> Maker:
    return Maker(processor, model.config, decoder)


def loss_and_gradients(
    model: LlavaNextVideoForConditionalGeneration, batches: Sequence[dict[str, object]]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Of one optimizer step over the batches."""
    model.zero_grad()
    learned = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        inputs = {key: value for key, value in batch.items() if key not in ("dropped", "samples")}
        loss = imitate(model, inputs, learned)
        loss.backward()
        total += float(loss.detach())
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return total, gradients


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=2e-6, msg=name)


def test_the_loss_of_a_mixed_batch_is_that_of_transformers_own_class(
    model: LlavaNextVideoForConditionalGeneration, make: Maker, records: list[Record]
) -> None:
    reference = Reference(Reference.config_class(**model.config.to_dict())).train()
    ours = model.state_dict()
    reference.load_state_dict({key: ours[key] for key in reference.state_dict()})
    batch = Collator(0)(make.items(records[:4]))  # Two questions about a clip, a picture, another clip.
    assert {"pixel_values", "image_sizes", "pixel_values_videos"} <= batch.keys()
    loss, _ = loss_and_gradients(model, [batch])
    del batch["dropped"], batch["samples"]
    with torch.no_grad():
        expected = float(reference(**batch).loss)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_small_batches_add_up_to_the_large_one(
    model: LlavaNextVideoForConditionalGeneration, make: Maker, records: list[Record]
) -> None:
    items = make.items(records[:8])
    collate = Collator(0)
    large = loss_and_gradients(model, [collate(items)])
    small = loss_and_gradients(model, [collate([item]) for item in items])
    assert small[0] == pytest.approx(large[0], rel=1e-5)
    assert_same(small[1], large[1])


def test_packed_questions_learn_what_they_learn_alone(
    model: LlavaNextVideoForConditionalGeneration, make: Maker, records: list[Record]
) -> None:
    clips = [record for record in records if isinstance(record.media[0], Video)]
    packed = make.items(clips, replace(RULES, pack_tokens=500))
    assert len(packed) == len(clips) // 2
    collate = Collator(0)
    batch = collate(packed)
    assert batch["attention_mask"].ndim == 4
    assert len(batch["pixel_values_videos"]) == len(packed)
    assert batch["samples"] == len(clips)
    together = loss_and_gradients(model, [batch])
    alone = loss_and_gradients(model, [collate(make.items(clips))])
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert_same(together[1], alone[1])


def test_clips_of_different_lengths_share_a_batch(
    model: LlavaNextVideoForConditionalGeneration, make: Maker, records: list[Record]
) -> None:
    items = make.items(records[:1]) + make.items(records[3:4], replace(RULES, sampling=Sampling(frames=2)))
    collate = Collator(0)
    batch = collate(items)
    assert [len(clip) for clip in batch["pixel_values_videos"]] == [3, 2]
    together = loss_and_gradients(model, [batch])
    alone = loss_and_gradients(model, [collate([item]) for item in items])
    assert together[0] == pytest.approx(alone[0], rel=1e-5)


def test_visual_tokens_and_lengths_are_those_of_the_model(
    model: LlavaNextVideoForConditionalGeneration, make: Maker, records: list[Record]
) -> None:
    samples = make.samples(records[:3])
    items = [samples[number] for number in range(3)]
    assert [len(item.ids) for item in items if isinstance(item, Example)] == samples.lengths
    video, image = model.config.video_token_index, model.config.image_token_index
    first, _, picture = items
    assert isinstance(first, Example)
    assert isinstance(picture, Example)
    assert int((first.ids == video).sum()) == 3 * 2 * 2  # Frames of 56 / 14 = 4 patches a side, pooled by 2.
    # The base tile and a 56 x 112 canvas of which a square picture fills half: 16 + 4 rows x (4 + newline).
    assert int((picture.ids == image).sum()) == 16 + 4 * 5
    assert all(int((item.labels == video).sum()) == 0 for item in items if isinstance(item, Example))


def broken(record: Record, path: Path) -> Record:
    parts = (Video(source=str(path)), Text(text="What moves?"))
    return replace(record, id="broken", turns=(Turn(role="user", parts=parts), record.turns[1]))


def test_a_bad_clip_is_named_and_never_replaced(
    make: Maker, model: LlavaNextVideoForConditionalGeneration, records: list[Record], tmp_path: Path
) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no clip")
    batch = Collator(0)(make.items([records[0], broken(records[1], path)]))
    (dropped,) = batch["dropped"]
    assert dropped.ids == ("broken",)
    assert "broken.mp4" in dropped.reason
    assert len(batch["input_ids"]) == 1
    nothing = Collator(0)(make.items([broken(records[1], path)]))
    assert loss_and_gradients(model, [nothing])[0] == 0.0
    with pytest.raises(MediaError, match=r"samples\.json:1: .*broken\.mp4"):
        make.items([broken(records[1], path)], replace(RULES, bad_media="stop"))


def test_a_sample_beyond_the_context_is_refused_or_loses_words_but_no_visual_token(
    make: Maker, records: list[Record]
) -> None:
    whole = make.items(records[:1])[0]
    assert isinstance(whole, Example)
    visual = whole.pixels[0].tokens
    short = replace(RULES, context=len(whole.ids) - 2)
    with pytest.raises(CapacityError, match=rf"{len(whole.ids)} tokens \({visual} visual, .*fewer frames"):
        make.items(records[:1], short)
    (dropped,) = make.items(records[:1], replace(short, too_long="drop"))
    assert isinstance(dropped, Dropped)
    (cut,) = make.items(records[:1], replace(short, too_long="shorten"))
    assert isinstance(cut, Example)
    assert torch.equal(cut.ids, whole.ids[: len(whole.ids) - 2])
    with pytest.raises(CapacityError):
        make.items(records[:1], replace(short, context=visual))
    hopeless = make.items(records[:1], replace(short, context=visual, too_long="shorten"))
    assert isinstance(hopeless[0], Dropped)


def test_a_picture_may_stand_beside_a_clip(
    make: Maker, model: LlavaNextVideoForConditionalGeneration, records: list[Record], media: Path
) -> None:
    parts = (
        Image(source=str(media / "clip1/0.png")),
        Video(source=str(media / "clip2")),
        Text(text="Is it in the clip?"),
    )
    both = replace(records[0], turns=(Turn(role="user", parts=parts), records[0].turns[1]))
    loss, gradients = loss_and_gradients(model, [Collator(0)(make.items([both]))])
    assert loss > 0
    assert float(gradients["model.image_newline"].abs().sum()) > 0
