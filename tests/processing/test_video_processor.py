"""Clips in any form to `pixel_values_videos`."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.media import Sampling, moments, read_clip, write_clip
from llava_next_video.processing import LlavaNextVideoImageProcessor, LlavaNextVideoVideoProcessor

SMALL = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}


@pytest.fixture(scope="module")
def ours():
    return LlavaNextVideoImageProcessor(**SMALL)


@pytest.fixture
def film(tmp_path, clip):
    return write_clip(tmp_path / "film.mp4", np.repeat(clip[:, :88], 3, axis=0), 12)


def pixels(processor, clips, **settings):
    return processor(clips, return_tensors="pt", **settings)["pixel_values_videos"]


def test_the_class_of_the_release_has_its_newer_name_too():
    assert LlavaNextVideoVideoProcessor is LlavaNextVideoImageProcessor


def test_defaults_are_those_of_the_release():
    processor = LlavaNextVideoImageProcessor()
    assert processor.size == {"shortest_edge": 224}
    assert processor.crop_size == {"height": 224, "width": 224}
    assert (processor.resample, processor.rescale_factor) == (3, 1 / 255)
    assert processor.image_mean == [0.48145466, 0.4578275, 0.40821073]


def test_the_same_frames_in_any_form_give_the_same_pixels(ours, clip):
    wanted = pixels(ours, clip)
    assert wanted.shape == (1, 8, 3, 56, 56)
    forms = [
        np.moveaxis(clip, -1, 1),
        torch.from_numpy(clip),
        torch.from_numpy(clip).permute(0, 3, 1, 2),
        clip.astype(np.int64),
        list(clip),
        list(torch.from_numpy(clip)),
        [Image.fromarray(frame) for frame in clip],
        read_clip(clip),
        [clip],
        clip[None],
        [list(clip)],
    ]
    for form in forms:
        assert torch.equal(pixels(ours, form), wanted)
    assert torch.equal(ours.preprocess(videos=clip, return_tensors="pt")["pixel_values_videos"], wanted)


def test_a_file_is_decoded_at_its_sampled_moments(ours, film):
    seen = read_clip(film, Sampling(frames=4))
    wanted = pixels(ours, seen)
    for source in (film, str(film), film.read_bytes(), io.BytesIO(film.read_bytes())):
        assert torch.equal(pixels(ours, source, num_frames=4), wanted)
    assert pixels(ours, film).shape[1] == 8


def test_an_array_is_taken_whole_unless_a_number_of_frames_is_asked_for(ours, clip):
    whole = pixels(ours, clip)
    assert torch.equal(pixels(ours, clip, num_frames=4), whole[:, [0, 2, 4, 6]])
    assert torch.equal(pixels(ours, clip, num_frames=4, sampler="linspace"), whole[:, [0, 2, 4, 7]])
    assert torch.equal(pixels(ours, clip, fps=1, video_metadata={"fps": 4}), whole[:, [0, 4]])
    assert torch.equal(pixels(ours, clip, do_sample_frames=False), whole)


def test_sampling_can_be_a_setting_of_the_processor(clip):
    processor = LlavaNextVideoImageProcessor(**SMALL, do_sample_frames=True, num_frames=2)
    assert pixels(processor, clip).shape[1] == 2
    assert pixels(processor, clip, num_frames=3).shape[1] == 3
    assert pixels(processor, clip, do_sample_frames=False).shape[1] == 8


def test_a_number_of_frames_set_once_holds_for_every_call(clip):
    assert pixels(LlavaNextVideoImageProcessor(**SMALL, num_frames=2), clip).shape[1] == 2
    switched_off = LlavaNextVideoImageProcessor(**SMALL, num_frames=2, do_sample_frames=False)
    assert pixels(switched_off, clip).shape[1] == 8


def test_frames_a_second_have_no_hidden_cap(ours, clip):
    long = np.repeat(clip, 5, axis=0)
    assert pixels(ours, long, fps=1, video_metadata={"fps": 2}).shape[1] == 20
    assert pixels(ours, long, fps=1, num_frames=6, video_metadata={"fps": 2}).shape[1] == 6


def test_metadata_say_which_frames_were_seen(ours, film):
    out = ours(film, num_frames=3, return_metadata=True)
    (metadata,) = out["video_metadata"]
    assert metadata["frames_indices"] == moments(24, Sampling(frames=3), None)
    assert (metadata["total_num_frames"], metadata["fps"]) == (24, 12)


def test_clips_that_differ_in_size_are_one_tensor_and_in_length_a_list(ours, clip):
    small = np.ascontiguousarray(clip[:, :70, :64])
    assert pixels(ours, [clip, small]).shape == (2, 8, 3, 56, 56)
    ragged = pixels(ours, [clip, clip[:3]])
    assert [tuple(one.shape) for one in ragged] == [(8, 3, 56, 56), (3, 3, 56, 56)]
    assert torch.equal(ragged[1], pixels(ours, clip)[0, :3])


def test_tensors_come_in_the_kind_that_was_asked_for(ours, clip):
    plain = ours(clip)["pixel_values_videos"]
    assert isinstance(plain, list)
    assert plain[0].shape == (8, 3, 56, 56)
    assert isinstance(ours(clip, return_tensors="np")["pixel_values_videos"], np.ndarray)
    with pytest.raises(ConfigError, match="torch and numpy"):
        ours(clip, return_tensors="jax")


def test_channel_order_comes_out_as_asked(ours, clip):
    wanted = pixels(ours, clip)
    assert torch.equal(pixels(ours, clip, data_format="channels_last"), wanted.permute(0, 1, 3, 4, 2))
    first = np.moveaxis(clip, -1, 1)
    assert torch.equal(pixels(ours, first, data_format=None), wanted)
    assert torch.equal(pixels(ours, clip, data_format=None), wanted.permute(0, 1, 3, 4, 2))


def test_the_input_order_can_be_told(ours):
    frames = np.zeros((2, 3, 60, 3), dtype=np.uint8)
    assert pixels(ours, frames, input_data_format="channels_last").shape == (1, 2, 3, 56, 56)
    grey = np.full((2, 60, 60), 51, dtype=np.uint8)
    out = pixels(ours, grey, input_data_format="none", do_normalize=False)
    assert out.unique().tolist() == pytest.approx([0.2])


def test_transparent_frames_lie_on_white(ours):
    frames = np.zeros((1, 60, 60, 4), dtype=np.uint8)
    assert pixels(ours, frames, do_normalize=False).unique().tolist() == [1.0]


def test_one_frame_is_resized_as_the_release_resizes_it(ours):
    frame = np.arange(60 * 90 * 3, dtype=np.uint8).reshape(60, 90, 3)
    out = ours.resize(frame, {"shortest_edge": 30})
    assert out.shape == (30, 45, 3)
    assert ours.resize(frame, {"shortest_edge": 30}, data_format="channels_first").shape == (3, 30, 45)
    pillow = np.asarray(Image.fromarray(frame).resize((45, 30), Image.Resampling.BICUBIC))
    assert np.abs(out.astype(int) - pillow.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("clips", "sentence"),
    [
        (np.zeros((2, 9, 9, 7), dtype=np.uint8), "no axis of 1, 3 or 4 channels"),
        (np.zeros((2, 2, 2, 2, 9, 9), dtype=np.uint8), "frames x height x width"),
        (np.zeros((0, 9, 9, 3), dtype=np.uint8), r"shape \(0, 9, 9, 3\)"),
        (np.full((1, 9, 9, 3), -1), "0 to 255"),
        ([np.zeros((9, 9, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "2 shapes"),
        ([], "empty"),
        (None, "once"),
        (7, "int is no clip"),
    ],
)
def test_what_is_no_clip_is_named(ours, clips, sentence):
    with pytest.raises(MediaError, match=sentence):
        ours(clips)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_frames": 0}, "at least 1"),
        ({"num_frames": 2, "do_sample_frames": False}, "drop one side"),
        ({"fps": 1}, "clip's own rate"),
        ({"sampler": "random"}, "sampler is 'random'"),
        ({"resample": 1}, "for pictures only"),
        ({"size": {"shortest_edge": -3}}, "size is"),
        ({"input_data_format": "sideways"}, "input_data_format"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_honoured_is_refused(ours, clip, settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ours(clip, **settings)


def test_a_clip_that_was_read_is_not_sampled_again(ours, film):
    seen = read_clip(film, Sampling(frames=4))
    assert pixels(ours, seen, num_frames=4).shape[1] == 4
    with pytest.raises(ConfigError, match=r"already read .* own settings .* do_sample_frames=False"):
        ours(seen, num_frames=2)
