"""What a question needs, before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llava_next_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_next_video.assistant import Plan
    from llava_next_video.assistant.answers import Seen
    from llava_next_video.media import Sampling


def read_factor(text: str | None) -> float | None:
    """A `--rope-factor` as a number; None where nothing was asked for, or `auto`.

    Raises:
        ConfigError: It is neither a number nor `auto`.
    """
    if text is None or text == "auto":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--rope-factor {text!r}; expected a number such as 2, or auto") from error


def plan_question(
    model: str | None,
    media: list[str],
    question: str,
    *,
    frames: Sampling,
    max_visual_tokens: int | None,
    rope_factor: float | None,
    max_new_tokens: int,
) -> tuple[Plan, list[Seen]]:
    """The plan of a question, and its media, which are read for it."""
    from llava_next_video.assistant import Planner, Reader
    from llava_next_video.media import Limits

    planner = Planner.load(model, rope_factor=rope_factor)
    reader = Reader(
        processor=planner.processor, limits=Limits(), frames=frames, max_visual_tokens=max_visual_tokens
    )
    prompt = reader.asked(media, question)
    return planner.plan(prompt, new_tokens=max_new_tokens), list(prompt.seen)


def plan_text(plan: Plan) -> str:
    """The plan for a reader, a line for each medium and three more."""
    lines = [
        f"{medium.name}: {'picture' if medium.frames is None else f'{medium.frames} frames'}, "
        f"{medium.tokens} visual tokens"
        for medium in plan.media
    ]
    lines += [
        f"prompt {plan.prompt_tokens} tokens ({plan.visual_tokens} visual), answer up to {plan.new_tokens}: "
        f"{plan.tokens} of {plan.context} that the context holds (rope factor {plan.rope_factor:g})",
        f"keys and values: {plan.key_value_bytes / 2**20:.1f} MiB in 16 bits, twice that in 32",
    ]
    most = "" if plan.frames_that_fit is None else f"; up to {plan.frames_that_fit} frames a clip would fit"
    if plan.fits:
        return "\n".join([*lines, f"it fits{most}"])
    return "\n".join([*lines, f"it does not fit{most}, or --rope-factor {plan.rope_factor_needed:g}"])
