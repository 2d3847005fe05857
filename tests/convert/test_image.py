"""LLaVA-NeXT image checkpoints become video checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.convert.conftest import bare_tokenizer
from tokenizers import AddedToken
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from llava_next_video import VideoAssistant
from llava_next_video.convert import Wishes, image_to_video
from llava_next_video.errors import CheckpointError, ConfigError, PromptError
from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor

SIDE = 56
PINPOINTS = [[56, 112], [112, 56], [112, 112]]
ADDED = Wishes(template="vicuna")


def image_checkpoint(folder: Path, *, spare: int, template: str | None = None) -> Path:
    """A tiny `llava_next` checkpoint as transformers saves it: its tokenizer knows `<image>` alone."""
    tokenizer: PreTrainedTokenizerFast = bare_tokenizer()
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    tokenizer.chat_template = template
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=36,
            num_hidden_layers=3,
            num_attention_heads=3,
            image_size=SIDE,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer) + spare,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_pictures_give_the_logits_of_the_image_checkpoint(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "image", spare=8)
    image_to_video(folder, tmp_path / "video", ADDED)
    theirs = LlavaNextForConditionalGeneration.from_pretrained(folder).eval()
    ours = LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path / "video").eval()
    processor = LlavaNextVideoProcessor.from_pretrained(tmp_path / "video")
    picture = Image.effect_noise((90, 40), 80).convert("RGB")
    inputs = processor("USER: <image>\nWhat is this? ASSISTANT:", images=picture)
    with torch.inference_mode():
        torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_clip_is_read_zero_shot(tmp_path: Path, square_clip: Path) -> None:
    image_to_video(image_checkpoint(tmp_path / "image", spare=8), tmp_path / "video", ADDED)
    answers = [
        VideoAssistant.load(tmp_path / "video", reference=reference, dtype="float32").ask(
            square_clip, "What?", frames=3, max_new_tokens=6
        )
        for reference in (False, True)
    ]
    assert answers[0].text == answers[1].text
    assert answers[0].usage.visual_tokens == 3 * 2 * 2  # 4 x 4 patches a frame, pooled by 2


# As the published LLaVA-NeXT checkpoints for pictures have it: a loop over pictures, then one over words.
PICTURES = """\
{% for message in messages %}{{ message['role'].upper() + ': ' }}\
{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}\
{{ '<image>\\n' }}{% endfor %}\
{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}\
{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""


def test_an_image_checkpoint_is_loaded_as_it_is(tmp_path: Path, square_clip: Path) -> None:
    folder = image_checkpoint(tmp_path / "image", spare=8, template=PICTURES)
    image_to_video(folder, tmp_path / "video")
    asked = {"question": "What happens?", "frames": 3, "max_new_tokens": 6}
    direct, converted, reference = (
        VideoAssistant.load(path, reference=reference, dtype="float32").ask([square_clip], **asked)
        for path, reference in ((folder, False), (tmp_path / "video", False), (folder, True))
    )
    assert direct.text == converted.text == reference.text
    assert direct.usage.visual_tokens == 3 * 2 * 2


def test_the_loop_over_pictures_is_repeated_for_clips(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "image", spare=8, template=PICTURES)
    content = [{"type": "image"}, {"type": "text", "text": "Same?"}, {"type": "video"}]
    text = LlavaNextVideoProcessor.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    assert text == "USER: <image>\n<video>\nSame? ASSISTANT:"


def test_an_image_checkpoint_without_a_spare_row_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "image", spare=0, template=PICTURES)
    with pytest.raises(
        ConfigError, match=r"rows and none for placeholder .*`llava-next-video convert image`"
    ):
        VideoAssistant.load(folder)


def test_clips_without_an_id_are_told_and_pictures_work(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "image", spare=8)
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(folder)
    embeddings = model.get_input_embeddings()(torch.tensor([[1, 2, 3]]))
    with torch.inference_mode():
        assert model(inputs_embeds=embeddings).logits.shape[:2] == (1, 3)
        with pytest.raises(PromptError, match="0 <video> placeholders, but 1 video"):
            model(torch.tensor([[1, 2]]), pixel_values_videos=torch.zeros(1, 2, 3, SIDE, SIDE))


@pytest.mark.slow
@pytest.mark.parametrize("spare", [8, 0])
def test_the_video_token_takes_a_spare_row_or_a_new_one(tmp_path: Path, spare: int) -> None:
    image_to_video(image_checkpoint(tmp_path / "image", spare=spare), tmp_path / "video", ADDED)
    config = LlavaNextVideoConfig.from_pretrained(tmp_path / "video")
    image = LlavaNextConfig.from_pretrained(tmp_path / "image")
    tokens = image.text_config.vocab_size - spare
    assert (config.image_token_index, config.video_token_index) == (image.image_token_index, tokens)
    grown = -(-(tokens + 1) // 64) * 64  # to a multiple of 64
    assert config.text_config.vocab_size == (tokens + 8 if spare else grown)


def test_a_template_of_its_own_that_knows_clips_stays(tmp_path: Path) -> None:
    own = "{% for part in messages[0]['content'] %}<video>{% endfor %}"
    image_to_video(image_checkpoint(tmp_path / "image", spare=8, template=own), tmp_path / "video")
    assert (tmp_path / "video" / "chat_template.jinja").read_text() == own


@pytest.mark.slow
def test_wishes_about_clips_are_honoured(tmp_path: Path) -> None:
    wishes = Wishes(template="vicuna", video_newline="grid", spatial_pool_stride=4, rope_factor=2.0)
    image_to_video(image_checkpoint(tmp_path / "image", spare=8), tmp_path / "video", wishes)
    config = LlavaNextVideoConfig.from_pretrained(tmp_path / "video")
    assert config.video_layout(1).tokens == 1 + 1  # one pooled patch, one newline
    assert config.text_config.rope_parameters["factor"] == 2.0


def test_other_families_and_unknown_templates_are_refused(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "image", spare=8)
    with pytest.raises(ConfigError, match="its chat template is not known; give --template"):
        image_to_video(folder, tmp_path / "video")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"model_type": "llava_next"', '"model_type": "llava"'))
    with pytest.raises(CheckpointError, match="is a llava on llama; supported are llava_next"):
        image_to_video(folder, tmp_path / "video", ADDED)
    assert not (tmp_path / "video").exists()
