"""Generation: padding, the extras of `generate`, the ends of the context."""

import pytest
import torch
from transformers import GenerationConfig

from llava_next_video.errors import CapacityError, ConfigError, PromptError

ROWS = [[1, ("image", 40, 90), 5, 6], [1, 7], [1, 5, ("video", 3), 6, 8, 9]]
TOKENS = {"max_new_tokens": 7, "do_sample": False}


def answers(model, inputs, **settings):
    """New ids of each row."""
    return model.generate(**inputs, **TOKENS, **settings)[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_gives_the_ids_of_no_padding(pair, batch, side):
    together = answers(pair[0], batch(ROWS, side))
    image, clip = batch(ROWS)["pixel_values"], batch(ROWS)["pixel_values_videos"]
    media = [{"pixel_values": image, "image_sizes": [[40, 90]]}, {}, {"pixel_values_videos": clip}]
    padded = batch(ROWS, side)
    for row, pixels in enumerate(media):
        ids = padded["input_ids"][row][padded["attention_mask"][row].bool()][None]
        alone = pair[1].generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **pixels, **TOKENS
        )  # transformers, unpadded
        assert together[row].tolist()[: alone.shape[1] - ids.shape[1]] == alone[0, ids.shape[1] :].tolist()


def test_right_padding_is_found_without_a_mask(pair, batch):
    inputs = batch(ROWS, "right")
    expected = answers(pair[0], inputs)
    del inputs["attention_mask"]
    assert torch.equal(answers(pair[0], inputs), expected)


def test_right_padded_embeddings_give_the_same_ids(pair, batch):
    inputs = batch(ROWS, "right")
    expected = answers(pair[0], inputs)
    embeddings = pair[0].get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.equal(pair[0].generate(inputs_embeds=embeddings, **inputs, **TOKENS), expected)


@pytest.mark.parametrize(
    "extra",
    [
        {"num_beams": 3},
        {"num_beams": 2, "num_return_sequences": 2},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 4},
        {"use_cache": False},
        {"repetition_penalty": 1.3},
    ],
    ids=str,
)
def test_extras_of_generate_give_the_ids_of_transformers(pair, batch, extra):
    inputs = batch(ROWS)
    mine, theirs = (network.generate(**inputs, **TOKENS, **extra) for network in pair)
    assert torch.equal(mine, theirs)


def test_prompt_lookup_gives_the_greedy_ids(pair, batch):
    inputs = batch([ROWS[2]])
    assert torch.equal(answers(pair[0], inputs, prompt_lookup_num_tokens=2), answers(pair[0], inputs))


def test_sampling_several_answers_repeats_each_row(pair, batch):
    inputs = batch(ROWS)
    torch.manual_seed(0)
    several = pair[0].generate(**inputs, max_new_tokens=4, do_sample=True, num_return_sequences=2)
    length = inputs["input_ids"].shape[1]
    assert torch.equal(several[::2, :length], inputs["input_ids"])
    assert torch.equal(several[1::2, :length], inputs["input_ids"])


def test_media_pass_the_vision_tower_once(pair, batch):
    passes = []
    embeddings = pair[0].model.vision_tower.embeddings
    hook = embeddings.register_forward_hook(lambda *call: passes.append(len(call[1][0])))
    answers(pair[0], batch(ROWS), prefill_chunk_size=4)
    hook.remove()
    assert passes == [3, 3]  # three tiles of the image, three frames of the clip


def test_clips_of_different_lengths_generate_together(pair, batch):
    inputs = batch([[1, ("video", 2), 5], [1, ("video", 3), 5]], "right")
    together = answers(pair[0], inputs, num_beams=2)
    for row, clip in enumerate(inputs["pixel_values_videos"]):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None]
        alone = pair[1].generate(ids, pixel_values_videos=clip[None], **TOKENS, num_beams=2)
        assert together[row].tolist()[: alone.shape[1] - ids.shape[1]] == alone[0, ids.shape[1] :].tolist()


def test_a_cache_is_continued_with_a_new_turn(pair, batch):
    inputs = batch([[1, ("video", 2), 5]])
    first = pair[0].generate(**inputs, **TOKENS, return_dict_in_generate=True)
    longer = torch.cat([first.sequences, torch.tensor([[6, 7, 8]])], dim=1)
    continued = pair[0].generate(longer, past_key_values=first.past_key_values, **TOKENS)
    inputs |= {"input_ids": longer, "attention_mask": torch.ones_like(longer)}
    assert torch.equal(continued, pair[0].generate(**inputs, **TOKENS))


def test_too_few_placeholders_are_named_before_any_network_runs(pair, batch):
    inputs = batch([[1, ("image", 40, 90), 5]])
    wanted = int((inputs["input_ids"] == 101).sum())
    inputs["input_ids"][0, 1] = 5
    ran = []
    parts = (pair[0].model.vision_tower.embeddings, pair[0].model.language_model)
    hooks = [part.register_forward_pre_hook(lambda *_: ran.append(1)) for part in parts]
    message = rf"{wanted - 1} <image> placeholders, but 1 image\(s\) give {wanted} visual tokens"
    with pytest.raises(PromptError, match=message):
        pair[0](**inputs)
    with pytest.raises(PromptError, match=message):
        pair[0].generate(**inputs, **TOKENS)
    for hook in hooks:
        hook.remove()
    assert not ran


def test_placeholders_of_two_rows_are_not_mixed_up(pair, batch):
    inputs = batch([[1, ("video", 2), 5, 6], [1, ("video", 2), 5, 6]])
    inputs["input_ids"][0, 1], inputs["input_ids"][1, -1] = 5, 100  # the total stays right
    with pytest.raises(PromptError, match="row 0 of the batch has 7 <video> placeholders"):
        pair[0](**inputs)


def test_placeholders_without_pixels_are_refused(pair, batch):
    inputs = batch([[1, ("video", 2), 5]])
    del inputs["pixel_values_videos"]
    with pytest.raises(PromptError, match="8 <video> placeholders, but no video was given"):
        pair[0].generate(**inputs, **TOKENS)
    with pytest.raises(PromptError, match="no video was given"):
        pair[0](**inputs)


def test_pixels_without_placeholders_are_refused(pair, batch):
    inputs = batch([[1, ("video", 2), 5]])
    inputs["input_ids"] = torch.full_like(inputs["input_ids"], 5)
    with pytest.raises(PromptError, match=r"0 <video> placeholders, but 1 video\(s\) give 8"):
        pair[0].generate(**inputs, **TOKENS)


def test_an_image_needs_its_size(pair, batch):
    inputs = batch([[1, ("image", 40, 90), 5]])
    del inputs["image_sizes"]
    with pytest.raises(PromptError, match="without image_sizes"):
        pair[0](**inputs)


def test_frames_of_the_wrong_size_are_refused(pair, batch):
    inputs = batch([[1, ("video", 2), 5]])
    inputs["pixel_values_videos"] = torch.zeros(1, 2, 3, 28, 28)
    with pytest.raises(PromptError, match="takes 56x56 pixels, got 28x28"):
        pair[0](**inputs)


def test_attention_weights_are_not_promised_by_sdpa(pair, batch):
    with pytest.raises(ConfigError, match="set_attn_implementation"):
        pair[0](**batch([[1, 5]]), output_attentions=True)


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(make):
    model = make.ours(make.tiny(text_config=make.text(max_position_embeddings=16)))
    ids = torch.full((1, 17), 5)
    with pytest.raises(CapacityError, match="17 tokens needed, 16 fit the context; use fewer frames"):
        model(ids)
    with pytest.raises(CapacityError, match=r"17 tokens needed.*larger rope factor \(now 1; 1.5 would do\)"):
        model.generate(ids[:, :16], **TOKENS)
    assert model(ids[:, :16]).logits.shape == (1, 16, 120)


def test_padding_does_not_count_as_context(make):
    model = make.ours(make.tiny(text_config=make.text(max_position_embeddings=16)))
    ids = torch.full((1, 20), 5)
    mask = torch.ones_like(ids)
    mask[:, :8] = 0
    assert model.generate(ids, attention_mask=mask, max_new_tokens=2, do_sample=False).shape == (1, 22)
    assert model(ids, attention_mask=mask).logits.shape == (1, 20, 120)


@pytest.mark.parametrize("asked", [{"max_new_tokens": 50}, {"max_length": 60}], ids=str)
def test_an_answer_ends_with_the_context(make, asked):
    model = make.ours(make.tiny(text_config=make.text(max_position_embeddings=16, eos_token_id=None)))
    ids = torch.full((1, 10), 5)
    assert model.generate(ids, do_sample=False, **asked).shape == (1, 16)
    settings = GenerationConfig(do_sample=False, **asked)
    assert model.generate(ids, settings).shape == (1, 16)
    assert {name: getattr(settings, name) for name in asked} == asked


def test_rows_padded_at_their_end_cannot_continue_a_cache(pair, batch):
    inputs = batch([[1, 5, 6]])
    first = pair[0].generate(**inputs, **TOKENS, return_dict_in_generate=True)
    longer = torch.cat([first.sequences, torch.tensor([[6, 0]])], dim=1)
    mask = torch.ones_like(longer)
    mask[:, -1] = 0
    with pytest.raises(PromptError, match="cannot continue a cache"):
        pair[0].generate(longer, attention_mask=mask, past_key_values=first.past_key_values, **TOKENS)


def test_features_computed_once_answer_several_questions(pair, batch):
    inputs = batch([[1, ("video", 2), 5, 6]])
    clip = inputs.pop("pixel_values_videos")
    encoded = {"video": pair[0].get_video_features(clip)}
    for question in (inputs["input_ids"], inputs["input_ids"].flip(1)):
        asked = {"input_ids": question, "attention_mask": torch.ones_like(question)}
        found = pair[0].generate(**asked, mm_encoder_outputs=encoded, **TOKENS, num_beams=2)
        assert torch.equal(found, pair[1].generate(**asked, pixel_values_videos=clip, **TOKENS, num_beams=2))


def test_pixels_and_features_are_not_given_together(pair, batch):
    inputs = batch([[1, ("video", 2), 5]])
    encoded = {"video": pair[0].get_video_features(inputs["pixel_values_videos"])}
    with pytest.raises(ValueError, match="not both"):
        pair[0](**inputs, mm_encoder_outputs=encoded)


def test_a_max_length_below_the_visual_tokens_counts_each_medium_as_one(pair, batch):
    inputs = batch([[1, ("video", 3), 6, 8]])  # 3 frames x 4 tokens; written as 4 tokens
    assert inputs["input_ids"].shape[1] == 15
    whole = pair[0].generate(**inputs, max_length=9, do_sample=False, eos_token_id=None)
    assert whole.shape[1] == 15 + 9 - 4
    assert torch.equal(whole[:, 15:], pair[1].generate(**inputs, max_new_tokens=5, eos_token_id=None)[:, 15:])
