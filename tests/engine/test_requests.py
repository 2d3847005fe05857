"""What callers may ask, and what happens to the others when one asks for too much."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from tests.engine.conftest import END, VIDEO, clip, picture, prompt, reference, words
from torch import Tensor

from llava_next_video.engine import Engine, EngineSettings, Output, SamplingOptions
from llava_next_video.errors import CapacityError, ConfigError, PromptError, SamplingError
from llava_next_video.inputs import Medium, ModelInputs
from llava_next_video.size import Size

SMALL = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=16)


@pytest.fixture
def engine(model: Any) -> Engine:
    return Engine.from_model(model, SMALL)


def drain(engine: Engine) -> dict[int, list[Output]]:
    found: dict[int, list[Output]] = {}
    while engine.busy:
        for output in engine.step():
            found.setdefault(output.request_id, []).append(output)
        engine.check()
    return found


def with_pixels(inputs: ModelInputs, pixels: Any) -> ModelInputs:
    one = inputs.media[0]
    medium = Medium(
        kind=one.kind, start=one.start, tokens=one.tokens, key=one.key, size=one.size, pixels=pixels
    )
    return ModelInputs(ids=inputs.ids, media=(medium,))


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; ask for at least 1 token"),
        ({"temperature": -0.5}, "temperature is -0.5; it must be 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be more than 0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"presence_penalty": 3.0}, "presence_penalty is 3.0"),
        ({"frequency_penalty": -3.0}, "frequency_penalty is -3.0"),
        ({"stop": ("",)}, "stop has an empty string"),
        ({"stop_token_ids": (-1,)}, "not negative"),
        ({"logit_bias": {3: 101.0}}, "outside -100 to 100"),
        ({"logprobs": 101}, "logprobs is 101"),
        ({"n": 0}, "n is 0"),
        ({"min_new_tokens": 300}, "min_new_tokens is 300"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_an_option_outside_its_range_is_refused_in_one_sentence(
    option: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SamplingError, match=sentence):
        SamplingOptions(**option)


@pytest.mark.parametrize(
    "setting",
    [{"token_budget": 8}, {"page_tokens": 0}, {"feature_bytes": -1}, {"context": 1}, {"max_waiting": 0}],
)
def test_a_setting_that_cannot_work_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EngineSettings(**setting)


def test_a_request_longer_than_the_context_is_refused_with_both_numbers(engine: Engine) -> None:
    with pytest.raises(
        CapacityError, match=r"1030 tokens needed \(1000 of prompt, 30 to generate\), 1024 fit the context"
    ):
        engine.add(prompt(words(1, 1000)), SamplingOptions(max_new_tokens=30))


def test_a_request_larger_than_all_pages_is_refused_with_both_numbers(model: Any) -> None:
    # 2 layers x (keys, values) x 2 heads x 16 numbers x 4 bytes = 512 bytes a token
    small = Engine.from_model(model, EngineSettings(dtype="float32", kv_bytes=512 * 16 * 4, token_budget=64))
    with pytest.raises(CapacityError, match=r"70 tokens needed.*64 fit into kv_bytes"):
        small.add(prompt(words(1, 40)), SamplingOptions(max_new_tokens=30))


def test_a_full_queue_refuses_the_next_request(model: Any) -> None:
    engine = Engine.from_model(model, EngineSettings(dtype="float32", kv_bytes=1 << 20, max_waiting=2))
    engine.add(prompt(words(1, 4)))
    engine.add(prompt(words(2, 4)))
    with pytest.raises(CapacityError, match="2 requests wait, and at most 2 may"):
        engine.add(prompt(words(3, 4)))


def test_placeholders_and_media_must_agree(engine: Engine) -> None:
    good = prompt(words(1, 3), clip(1, 2), words(2, 3))
    one = good.media[0]

    def moved(start: int, tokens: int) -> ModelInputs:
        medium = Medium(kind="video", start=start, tokens=tokens, key=one.key, size=None, pixels=one.pixels)
        return ModelInputs(ids=good.ids, media=(medium,))

    with pytest.raises(PromptError, match="8 placeholders stand for no medium"):
        engine.add(ModelInputs(ids=good.ids))
    with pytest.raises(PromptError, match="4 placeholders stand for no medium"):
        engine.add(moved(3, 4))
    with pytest.raises(PromptError, match="not all placeholders of a video"):
        engine.add(moved(2, 8))
    with pytest.raises(PromptError, match="outside it"):
        engine.add(moved(3, 80))
    with pytest.raises(PromptError, match="inside another medium"):
        engine.add(ModelInputs(ids=good.ids, media=(one, one)))
    with pytest.raises(PromptError, match="outside the vocabulary"):
        engine.add(ModelInputs(ids=(1, 9999)))
    with pytest.raises(PromptError, match="empty"):
        engine.add(ModelInputs(ids=()))
    with pytest.raises(ValueError, match="32 bytes"):
        engine.add(
            ModelInputs(
                ids=(VIDEO,) * 4,
                media=(Medium(kind="video", start=0, tokens=4, key=b"", size=None, pixels=one.pixels),),
            )
        )
    with pytest.raises(SamplingError, match="token id 320 is beyond the vocabulary of 320"):
        engine.add(good, SamplingOptions(stop_token_ids=(320,)))
    assert not engine.busy


def test_pixels_that_do_not_match_their_placeholders_cost_only_their_request(
    engine: Engine, model: Any
) -> None:
    good = prompt(words(1, 3), clip(1, 2), words(2, 3))
    wrong = prompt(words(1, 3), clip(5, 3), words(2, 3))
    bad = with_pixels(wrong, clip(5, 4).pixels)
    numbers = engine.add(bad), engine.add(good, SamplingOptions(max_new_tokens=8))
    found = drain(engine)
    assert found[numbers[0]][-1].finish == "error"
    assert "16 visual tokens but the prompt has 12 placeholders" in str(found[numbers[0]][-1].error)
    assert [id for output in found[numbers[1]] for id in output.ids] == reference(model, good, 8)


def test_pixels_of_the_wrong_shape_cost_only_their_request(engine: Engine) -> None:
    inputs = prompt(picture(1, Size(60, 60)))
    number = engine.add(with_pixels(inputs, picture(1, Size(60, 60)).load()[:2]))
    assert "an image has 2 tiles" in str(drain(engine)[number][-1].error)


def test_a_decoder_that_dies_costs_only_its_request(engine: Engine, model: Any) -> None:
    def dies() -> Tensor:
        raise BrokenPipeError("the worker was killed")

    bad = with_pixels(prompt(clip(1, 3), words(1, 2)), dies)
    good = prompt(clip(2, 3), words(1, 2))
    numbers = engine.add(bad), engine.add(good, SamplingOptions(max_new_tokens=6))
    found = drain(engine)
    assert found[numbers[0]][-1].error == "BrokenPipeError: the worker was killed"
    assert [id for output in found[numbers[1]] for id in output.ids] == reference(model, good, 6)


def test_a_clip_that_one_request_cannot_read_is_read_by_the_next(engine: Engine, model: Any) -> None:
    def dies() -> Tensor:
        raise BrokenPipeError("the worker was killed")

    good = prompt(clip(1, 3), words(1, 2))
    engine.add(with_pixels(good, dies))
    number = engine.add(good, SamplingOptions(max_new_tokens=6))
    found = drain(engine)
    assert [id for output in found[number] for id in output.ids] == reference(model, good, 6)


def test_a_guide_that_throws_or_allows_nothing_costs_only_its_request(engine: Engine, model: Any) -> None:
    def throws(answer: Any) -> Tensor:
        raise KeyError("no such rule")

    def nothing(answer: Any) -> Tensor:
        return torch.zeros(320, dtype=torch.bool)

    good = prompt(words(1, 5))
    numbers = [
        engine.add(prompt(words(2, 5)), SamplingOptions(guide=throws)),
        engine.add(prompt(words(3, 5)), SamplingOptions(guide=nothing, temperature=1.0)),
        engine.add(good, SamplingOptions(max_new_tokens=6)),
    ]
    found = drain(engine)
    assert found[numbers[0]][-1].error == "KeyError: 'no such rule'"
    assert found[numbers[1]][-1].error == "the guide allows no token after the answer so far"
    assert [id for output in found[numbers[2]] for id in output.ids] == reference(model, good, 6)


class Promise:
    """Pixels that a thread makes."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self.event = threading.Event()

    def ready(self) -> bool:
        return self.event.is_set()

    def __call__(self) -> Tensor:
        return self.pixels


def test_requests_pass_one_whose_pixels_are_not_ready(engine: Engine, model: Any) -> None:
    inputs = prompt(clip(1, 3), words(1, 2))
    promise = Promise(clip(1, 3).load())
    slow = engine.add(with_pixels(inputs, promise), SamplingOptions(max_new_tokens=4))
    fast = engine.add(prompt(words(3, 5)), SamplingOptions(max_new_tokens=4))
    finished: list[int] = []
    for _ in range(20):
        finished += [output.request_id for output in engine.step() if output.finish]
    assert finished == [fast]
    promise.event.set()
    answer = [id for output in drain(engine)[slow] for id in output.ids]
    assert answer == reference(model, inputs, 4)


def test_cached_features_need_no_pixels(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    inputs = prompt(words(1, 2), clip(1, 3), words(1, 2))
    engine.generate([inputs], SamplingOptions(max_new_tokens=2))

    def never() -> Tensor:
        raise AssertionError("asked for pixels")

    other = with_pixels(prompt(words(9, 20), clip(1, 3), words(1, 2)), never)
    assert engine.generate([other], SamplingOptions(max_new_tokens=2))[0].last.error is None


def test_an_abort_ends_a_request_at_any_stage(engine: Engine) -> None:
    inputs = prompt(words(1, 2), clip(1, 9), words(1, 60))
    for steps in range(8):
        number = engine.add(inputs, SamplingOptions(max_new_tokens=40, ignore_eos=True))
        for _ in range(steps):
            engine.step()
        assert engine.abort(number)
        assert drain(engine)[number][-1].finish == "abort"
        assert engine.load().pages_used == 0
        assert engine.load().features_in_use == 0
        engine.pages.forget_all()


def test_an_abort_of_an_unknown_id_is_told(engine: Engine) -> None:
    assert not engine.abort(12345)
    number = engine.add(prompt(words(1, 3)), SamplingOptions(max_new_tokens=2))
    drain(engine)
    assert not engine.abort(number)


def test_bad_requests_are_refused_one_by_one_while_a_good_one_goes_on(engine: Engine, model: Any) -> None:
    good = prompt(words(1, 3), clip(1, 3), words(2, 4))
    number = engine.add(good, SamplingOptions(max_new_tokens=12))
    found: list[int] = []
    bad: list[tuple[type[Exception], Any]] = [
        (CapacityError, lambda: engine.add(prompt(words(1, 900)), SamplingOptions(max_new_tokens=200))),
        (SamplingError, lambda: engine.add(good, SamplingOptions(max_new_tokens=0))),
        (SamplingError, lambda: engine.add(good, SamplingOptions(temperature=-1.0))),
        (SamplingError, lambda: engine.add(good, SamplingOptions(stop=("",)))),
        (PromptError, lambda: engine.add(ModelInputs(ids=(5, VIDEO, 6)))),
        (PromptError, lambda: engine.add(ModelInputs(ids=(5, 6), media=good.media))),
        (PromptError, lambda: engine.add(ModelInputs(ids=()))),
    ]
    for error, attempt in bad:
        with pytest.raises(error):
            attempt()
        assert not engine.abort(number + 1000)
        for output in engine.step():
            found += output.ids
        engine.check()
    found += [id for output in drain(engine)[number] for id in output.ids]
    assert found == reference(model, good, 12)


def test_a_page_that_nobody_holds_is_noticed_when_the_engine_falls_idle(engine: Engine) -> None:
    engine.generate([prompt(words(1, 5))], SamplingOptions(max_new_tokens=3))
    engine.pages.take(1, owner=(99, 0))
    with pytest.raises(AssertionError, match="1 pages are held by nobody"):
        engine.generate([prompt(words(2, 5))], SamplingOptions(max_new_tokens=3))


def test_stop_ends_a_request_whose_text_is_complete(engine: Engine) -> None:
    number = engine.add(prompt(words(1, 3)), SamplingOptions(max_new_tokens=50, ignore_eos=True))
    for _ in range(5):
        engine.step()
    assert engine.stop(number)
    assert drain(engine)[number][-1].finish == "stop"


def test_a_request_past_its_deadline_ends_while_others_go_on(engine: Engine) -> None:
    late = engine.add(
        prompt(words(1, 3)), SamplingOptions(max_new_tokens=500, ignore_eos=True), timeout_s=0.05
    )
    number = engine.add(prompt(words(2, 3)), SamplingOptions(max_new_tokens=3, ignore_eos=True))
    engine.step()
    time.sleep(0.06)
    found = drain(engine)
    assert found[late][-1].finish == "timeout"
    assert found[number][-1].finish == "length"


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(engine: Engine, model: Any) -> None:
    inputs = prompt(words(1, 3), clip(1, 4), words(2, 5))
    whole = reference(model, inputs, 10)
    stop = whole[4]
    answer = engine.generate([inputs], SamplingOptions(max_new_tokens=10, stop_token_ids=(stop,)))[0]
    assert list(answer.ids) == whole[: whole.index(stop)]
    assert answer.last.finish == "stop"


def test_ignore_eos_and_min_new_tokens_hold_back_the_end_token(engine: Engine, model: Any) -> None:
    inputs = next(p for seed in range(400) if len(reference(model, p := prompt(words(seed, 5)), 12)) < 12)
    early = len(reference(model, inputs, 12))
    held = engine.generate([inputs], SamplingOptions(max_new_tokens=12, min_new_tokens=early + 1))[0]
    assert len(held.ids) > early
    assert list(held.ids) == reference(model, inputs, 12, min_new_tokens=early + 1)
    ignored = engine.generate([inputs], SamplingOptions(max_new_tokens=12, ignore_eos=True))[0]
    assert list(ignored.ids) == reference(model, inputs, 12, min_new_tokens=12)
    assert END not in ignored.ids


def test_a_device_without_attention_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="cpu"):
        Engine.from_model(model, EngineSettings(device="cuda"))


def test_a_context_beyond_the_checkpoint_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="context is 2000, the checkpoint can tell 1024 positions apart"):
        Engine.from_model(model, EngineSettings(context=2000))


def test_rope_that_changes_with_the_length_keeps_to_the_trained_length() -> None:
    from tests.engine.conftest import tiny

    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    engine = Engine.from_model(tiny(text={"rope_parameters": rope, "max_position_embeddings": 128}), SMALL)
    with pytest.raises(CapacityError, match="128 fit the context"):
        engine.add(prompt(words(1, 100)), SamplingOptions(max_new_tokens=30))


def test_a_consumed_model_answers_as_before() -> None:
    from tests.engine.conftest import tiny

    inputs = prompt(words(1, 3), clip(1, 4), words(2, 5))
    whole = reference(tiny(), inputs, 10)
    model = tiny()
    engine = Engine.from_model(model, SMALL, consume=True)
    assert list(engine.generate([inputs], SamplingOptions(max_new_tokens=10))[0].ids) == whole
    assert sum(parameter.numel() for parameter in model.parameters()) == 0
