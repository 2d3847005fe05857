"""Our network against the one of transformers, on the same weights, in fp32."""

from typing import Any

import pytest
import torch

TEXT = [5, 6, 7, 8]
PROMPTS: dict[str, list[list[Any]]] = {
    "text": [[1, *TEXT]],
    "image": [[1, ("image", 40, 90), *TEXT]],
    "tall image": [[1, ("image", 90, 40), *TEXT]],
    "image on four tiles": [[1, 9, ("image", 100, 100), *TEXT]],
    "video": [[1, ("video", 3), *TEXT]],
    "image and video": [[1, ("image", 30, 112), 9, ("video", 2), *TEXT]],
    "video before image": [[1, ("video", 2), ("image", 30, 112), *TEXT]],
    "two images in a row": [[1, ("image", 40, 90), ("image", 100, 100), *TEXT]],
    "two videos in a row": [[1, ("video", 2), ("video", 2), *TEXT]],
    "a batch of one of each": [[1, ("image", 40, 90), *TEXT], [1, *TEXT], [1, 5, ("video", 3), 6]],
    "a batch of videos": [[1, ("video", 2), *TEXT], [1, 9, ("video", 2), *TEXT], [3, 4, 5, ("video", 2)]],
}


def assert_same_logits(pair, inputs) -> None:
    with torch.no_grad():
        mine, theirs = (network(**inputs).logits for network in pair)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(mine[real], theirs[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS.keys())
def test_logits_equal_those_of_transformers(pair, batch, rows, side):
    assert_same_logits(pair, batch(rows, side))


@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS.keys())
def test_greedy_ids_equal_those_of_transformers(pair, batch, rows):
    inputs = batch(rows)
    mine, theirs = (network.generate(**inputs, max_new_tokens=8, do_sample=False) for network in pair)
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("tower", "decoder"), [("clip", "mistral"), ("clip", "qwen2"), ("siglip", "llama"), ("siglip", "qwen2")]
)
def test_other_backbones_equal_transformers_too(make, tower, decoder):
    pair = make.both(make.tiny(tower, decoder))
    inputs = make.prompt(pair[1], PROMPTS["a batch of one of each"])
    assert_same_logits(pair, inputs)
    mine, theirs = (network.generate(**inputs, max_new_tokens=5, do_sample=False) for network in pair)
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "settings",
    [
        {"spatial_pool_mode": "max"},
        {"spatial_pool_mode": "conv"},
        {"spatial_pool_stride": 4},
        {"spatial_pool_stride": 1},
        {"spatial_pool_stride": 3},
        {"vision_feature_layer": [-3, -1]},
        {"vision_feature_layer": 1},
        {"multimodal_projector_bias": False},
        {"projector_hidden_act": "relu"},
        {"tie_word_embeddings": True},
    ],
    ids=str,
)
def test_each_setting_that_transformers_has_gives_its_logits(make, settings):
    pair = make.both(make.tiny(**settings))
    assert_same_logits(pair, make.prompt(pair[1], PROMPTS["a batch of one of each"]))


def test_rope_scaling_gives_the_logits_of_transformers(make):
    scaled = make.text(rope_scaling={"type": "linear", "factor": 2.5})
    pair = make.both(make.tiny(text_config=scaled))
    assert pair[0].config.text_config.rope_parameters["factor"] == 2.5
    assert_same_logits(pair, make.prompt(pair[1], PROMPTS["image and video"]))


def test_loss_and_gradients_equal_those_of_transformers(pair, batch):
    inputs = batch(PROMPTS["a batch of one of each"], "right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    losses = [network(**inputs, labels=labels).loss for network in pair]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    theirs = dict(pair[1].named_parameters())
    for name, weight in pair[0].named_parameters():
        expected = theirs[name].grad
        if expected is None:
            assert weight.grad is None, name
        else:
            torch.testing.assert_close(weight.grad, expected, atol=1e-5, rtol=1e-4, msg=name)
    for network in pair:
        network.zero_grad()


def test_hidden_states_and_attentions_equal_those_of_transformers(make):
    pair = make.both(make.tiny())
    inputs = make.prompt(pair[1], PROMPTS["image and video"])
    for network in pair:
        network.set_attn_implementation("eager")
    with torch.no_grad():
        mine, theirs = (
            network(**inputs, output_hidden_states=True, output_attentions=True) for network in pair
        )
    torch.testing.assert_close(mine.hidden_states, theirs.hidden_states, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.attentions, theirs.attentions, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.image_hidden_states, theirs.image_hidden_states)


def test_another_layer_can_be_chosen_for_one_call(pair, batch):
    inputs = batch(PROMPTS["image and video"])
    with torch.no_grad():
        mine, theirs = (network(**inputs, vision_feature_layer=1).logits for network in pair)
        usual = pair[0](**inputs).logits
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(mine, usual)


def test_embeddings_can_be_given_in_place_of_ids(pair, batch):
    inputs = batch(PROMPTS["a batch of one of each"])
    with torch.no_grad():
        by_ids = pair[0](**inputs).logits
        embeddings = pair[0].get_input_embeddings()(inputs.pop("input_ids"))
        by_embeddings = pair[0](inputs_embeds=embeddings, **inputs).logits
    assert torch.equal(by_ids, by_embeddings)


def test_features_computed_before_give_the_same_logits(pair, batch):
    inputs = batch(PROMPTS["a batch of one of each"])
    model = pair[0]
    with torch.no_grad():
        expected = model(**inputs).logits
        encoded = {
            "image": model.get_image_features(inputs.pop("pixel_values"), inputs.pop("image_sizes")),
            "video": model.get_video_features(inputs.pop("pixel_values_videos")),
        }
        assert torch.equal(model(**inputs, mm_encoder_outputs=encoded).logits, expected)


def test_a_tuple_has_what_the_record_has_in_the_same_order(pair, batch):
    inputs = batch(PROMPTS["image and video"])
    with torch.no_grad():
        record = pair[0](**inputs, use_cache=False)
        plain = pair[0](**inputs, use_cache=False, return_dict=False)
    assert isinstance(plain, tuple)
    assert [name for name, value in record.items() if value is not None] == [
        "logits",
        "image_hidden_states",
        "video_hidden_states",
    ]
    for found, expected in zip(plain, record.to_tuple(), strict=True):
        assert torch.equal(found, expected)


def test_visual_hidden_states_are_tokens_by_width(pair, batch):
    inputs = batch([[1, ("image", 40, 90), ("image", 40, 90), ("video", 2), ("video", 3), 5]])
    with torch.no_grad():
        output = pair[0](**inputs)
    placeholders = inputs["input_ids"]
    assert output.image_hidden_states.shape == (int((placeholders == 101).sum()), 64)
    assert output.video_hidden_states.shape == (2 * 4 + 3 * 4, 64)


def test_only_the_wanted_logits_are_computed(pair, batch):
    inputs = batch(PROMPTS["video"])
    with torch.no_grad():
        every = pair[0](**inputs).logits
        last = pair[0](**inputs, logits_to_keep=2).logits
        some = pair[0](**inputs, logits_to_keep=torch.tensor([0, 3])).logits
    torch.testing.assert_close(last, every[:, -2:])
    torch.testing.assert_close(some, every[:, [0, 3]])


def test_clips_of_different_lengths_go_in_one_batch(pair, batch):
    together = batch([[1, ("video", 2), *TEXT], [1, ("video", 3), *TEXT]], "right")
    assert isinstance(together["pixel_values_videos"], list)
    with torch.no_grad():
        mine = pair[0](**together).logits
        for row, clip in enumerate(together["pixel_values_videos"]):
            ids = together["input_ids"][row][together["attention_mask"][row].bool()]
            alone = pair[1](ids[None], pixel_values_videos=clip[None]).logits[0]
            torch.testing.assert_close(mine[row, : len(ids)], alone, atol=1e-5, rtol=1e-5)
