"""The page that a checkpoint shows on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava_next_video.model import LlavaNextVideoConfig, context_limit


def write_card(folder: Path, config: LlavaNextVideoConfig, base: str | None, notes: Sequence[str]) -> None:
    """Write README.md: what the hub wants to know of a model, its settings, and how to ask it."""
    head = [
        "---",
        "library_name: transformers",
        "pipeline_tag: video-text-to-text",
        *([f"base_model: {base}"] if base else []),
        "tags:",
        "- llava-next-video",
        "---",
    ]
    text, vision = config.text_config, config.vision_config
    rows = {
        "text network": f"{text.model_type}, {text.num_hidden_layers} layers, width {text.hidden_size}",
        "vision tower": f"{vision.model_type}, {vision.num_hidden_layers} layers, {vision.image_size} pixels",
        "visual tokens of a frame": config.video_layout(1).tokens_per_frame,
        "pooling": f"{config.spatial_pool_mode}, stride {config.spatial_pool_stride}, "
        f"{'before' if config.pool_before_projector else 'after'} the projector",
        "newlines in a clip": config.video_newline,
        "context": f"{context_limit(config)} tokens",
        "number format": str(config.dtype).removeprefix("torch."),
    }
    lines = [
        *head,
        "",
        "# LLaVA-NeXT-Video",
        "",
        "Answers questions about videos and pictures. Converted by `llava-next-video`.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        "```python",
        "from llava_next_video import VideoAssistant",
        "",
        'assistant = VideoAssistant.load("path or name of this checkpoint")',
        'print(assistant.ask("clip.mp4", "What happens in this video?").text)',
        "```",
        "",
        *(f"- {note[0].upper()}{note[1:]}." for note in notes),
    ]
    (folder / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
