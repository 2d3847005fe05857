"""A conversation to the text a checkpoint was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from llava_next_video.errors import PromptError
from llava_next_video.messages import Image, Turn, Video, as_chat

TemplateName = Literal["vicuna", "mistral", "chatml", "chatml_direct", "qwen", "plain"]
TEMPLATE_NAMES: tuple[TemplateName, ...] = get_args(TemplateName)

_PICTURES = re.compile(
    r"\{%-?\s*for \w+ in [^%]*selectattr\(['\"]type['\"], ?['\"]equalto['\"], ?['\"]image['\"]\)\s*-?%\}"
    r".*?\{%-?\s*endfor\s*-?%\}",
    re.DOTALL,
)
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A prompt, and from where to where (in characters) the assistant spoke."""

    text: str
    spoken: tuple[tuple[int, int], ...] = ()


def chat_template(name: str) -> str:
    """A chat template that comes with the package.

    `vicuna` is for the 7B and 7B-DPO checkpoints, `mistral` for 7B-32K, `chatml` for 34B, `chatml_direct`
    for 34B and 7B-32K as the original repository prompts them, `qwen` for 32B and LLaVA-Video, `plain` for
    alignment. All put the media of a turn, in their order, before its words, because that is what the
    checkpoints have seen.

    Source: transformers, `convert_llava_next_video_weights_to_hf.py`; LLaVA-NeXT, `llava/conversation.py`.
    """
    if name not in TEMPLATE_NAMES:
        raise PromptError(f"no chat template {name!r}; known: {', '.join(TEMPLATE_NAMES)}")
    return (resources.files(__package__) / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def with_clips(template: str) -> str | None:
    """A template for pictures that writes clips, too: after its loop over pictures, the same over clips.

    It stays as it is if it knows clips; None if it has no such loop.

    >>> pictures = "{% for part in said | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    >>> with_clips(pictures).count("<video>"), with_clips("{{ messages[0]['content'] }}")
    (1, None)
    """
    if "<video>" in template:
        return template
    more, loops = _PICTURES.subn(lambda loop: loop[0] + loop[0].replace("image", "video"), template)
    return more if loops else None


def pick_template(wanted: str | None, own: str | Mapping[str, str] | None) -> str:
    """The template to render: a text as it is, a name looked up, or the default of `own`.

    Raises:
        PromptError: There is none, or several without a default.
    """
    named = own if isinstance(own, Mapping) else {"default": own} if own else {}
    if wanted is None:
        if "default" in named:
            return named["default"]
        choices = f"choose one of {', '.join(named)}" if named else "pass chat_template="
        raise PromptError(
            f"this processor has no default chat template; {choices}, or one of {', '.join(TEMPLATE_NAMES)}"
        )
    if wanted in named:
        return named[wanted]
    return chat_template(wanted) if wanted in TEMPLATE_NAMES else wanted


def render(
    template: str,
    turns: Sequence[Turn],
    *,
    add_generation_prompt: bool,
    continue_final_message: bool = False,
    mark_spoken: bool = False,
    variables: Mapping[str, object],
) -> Rendered:
    """The conversation as one prompt.

    `variables` are what the template may read: special tokens and whatever a caller adds.

    Raises:
        PromptError: The template refuses the conversation, or cannot mark what the assistant said.
    """
    if continue_final_message and add_generation_prompt:
        raise PromptError(
            "continue_final_message goes on with the last turn, add_generation_prompt starts a new one"
        )
    if mark_spoken and not GENERATION.search(template):
        raise PromptError(
            "the chat template does not mark what the assistant said with {% generation %}; "
            f"use one that does: {', '.join(TEMPLATE_NAMES)}"
        )
    try:
        texts, spans = render_jinja_template(
            conversations=[as_chat(turns)],
            chat_template=template,
            return_assistant_tokens_mask=mark_spoken,
            continue_final_message=continue_final_message,
            add_generation_prompt=add_generation_prompt,
            **variables,
        )
    except (TemplateError, ValueError) as error:
        raise PromptError(f"the chat template cannot render this conversation: {error}") from error
    return Rendered(text=texts[0], spoken=tuple(tuple(span) for span in spans[0]) if mark_spoken else ())


def is_batch(conversation: object) -> bool:
    """Whether these are several conversations, not the messages of one."""
    return (
        isinstance(conversation, list | tuple)
        and bool(conversation)
        and isinstance(conversation[0], list | tuple)
    )


def sources(
    turns: Sequence[Sequence[Turn]], *, images: object, videos: object
) -> tuple[object | None, object | None]:
    """The pictures and the clips: those in the messages, or those handed over beside them; None without any.

    Raises:
        PromptError: One kind is given in both ways.
    """
    return _sources(turns, Image, "images", images), _sources(turns, Video, "videos", videos)


def _sources(
    turns: Sequence[Sequence[Turn]], kind: type[Image] | type[Video], name: str, beside: object
) -> object | None:
    media = [part for conversation in turns for turn in conversation for part in turn.media]
    inside = [part.source for part in media if isinstance(part, kind) and part.source is not None]
    if inside and beside is not None:
        raise PromptError(
            f"{name} are given in the messages ({len(inside)}) and as {name}=; keep one of the two"
        )
    return inside or beside
