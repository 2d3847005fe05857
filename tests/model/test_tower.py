"""The vision tower: how deep it runs, and in what portions."""

import pytest
import torch


def passes(model, call):
    """How often each layer of the tower ran during a call."""
    counts = [0] * len(model.model.vision_tower.encoder.layers)
    hooks = [
        layer.register_forward_hook(lambda *_, place=place: counts.__setitem__(place, counts[place] + 1))
        for place, layer in enumerate(model.model.vision_tower.encoder.layers)
    ]
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return counts


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (-2, [1, 1, 0]),
        (-1, [1, 1, 1]),
        (1, [1, 0, 0]),
        (0, [0, 0, 0]),
        ([-3, 1], [1, 0, 0]),
        ([0, 3], [1, 1, 1]),
    ],
    ids=str,
)
def test_layers_behind_the_deepest_used_are_not_computed(make, layer, expected):
    model = make.ours(make.tiny(vision_feature_layer=layer))
    clip = torch.randn(1, 2, 3, 56, 56)
    assert passes(model, lambda: model.get_video_features(clip)) == expected
    assert (
        passes(model, lambda: model.get_image_features(torch.randn(1, 3, 3, 56, 56), [[40, 90]])) == expected
    )


def test_features_of_layer_zero_are_the_embeddings(make):
    model = make.ours(make.tiny(vision_feature_layer=0))
    frames = torch.randn(2, 3, 56, 56)
    tower = model.model.vision_tower
    with torch.no_grad():
        expected = tower.pre_layrnorm(tower.embeddings(frames))[:, 1:]
        assert torch.equal(model.get_video_features(frames).last_hidden_state, expected)


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_a_clip_in_portions_gives_the_features_of_the_whole(make, tower, chunk):
    clip = torch.randn(5, 3, 56, 56)
    whole = make.ours(make.tiny(tower))
    portions = make.ours(make.tiny(tower, vision_chunk=chunk))
    with torch.no_grad():
        found = portions.get_video_features(clip).pooler_output[0]
        torch.testing.assert_close(found, whole.get_video_features(clip).pooler_output[0])
    assert max(passes(portions, lambda: portions.get_video_features(clip))) == -(-5 // chunk)


def test_no_more_tiles_than_a_portion_pass_at_once(make):
    model = make.ours(make.tiny(vision_chunk=2))
    seen = []
    hook = model.model.vision_tower.embeddings.register_forward_hook(lambda *call: seen.append(len(call[2])))
    with torch.no_grad():
        model.get_image_features(torch.randn(1, 5, 3, 56, 56), [[100, 100]])
    hook.remove()
    assert seen == [2, 2, 1]


def test_tiles_can_be_given_in_a_row_or_image_by_image(make):
    model = make.ours(make.tiny())
    sizes = torch.tensor([[40, 90], [100, 100]])
    images = [torch.randn(3, 3, 56, 56), torch.randn(5, 3, 56, 56)]
    padded = torch.stack([torch.cat([images[0], torch.zeros(2, 3, 56, 56)]), images[1]])
    with torch.no_grad():
        expected = model.get_image_features(padded, sizes).pooler_output
        for pixels in (images, torch.cat(images)):
            found = model.get_image_features(pixels, sizes).pooler_output
            assert all(torch.equal(*both) for both in zip(found, expected, strict=True))
