"""What a question needs, before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from llava_next_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_next_video.assistant import Plan
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


def read_long(
    *,
    rope_factor: str | None,
    rope_kind: str | None,
    slow_fast: int | None,
    slow_stride: int | None,
    newline: str | None,
    time_instruction: bool,
) -> dict[str, Any]:
    """What the flags for long clips ask for, as `VideoAssistant.ask` takes it.

    Raises:
        ConfigError: One is out of range, or `--slow-stride` stands without `--slow-fast`.
    """
    from llava_next_video.long_video import ClipLayout, RopeScaling, SlowFast

    if slow_stride is not None and slow_fast is None:
        raise ConfigError(f"--slow-stride {slow_stride} is for slow frames; say which with --slow-fast")
    rope = layout = None
    if rope_factor is not None or rope_kind is not None:
        kind = rope_kind or ("auto" if rope_factor == "auto" else "linear")
        rope = RopeScaling(kind=cast(Any, kind), factor=read_factor(rope_factor))
    if slow_fast is not None or newline is not None:
        slow = None if slow_fast is None else SlowFast(every=slow_fast, stride=slow_stride)
        layout = ClipLayout(slow_fast=slow, newline=cast(Any, newline))
    return {"rope": rope, "layout": layout, "time_instruction": time_instruction}


def plan_question(
    model: str | None,
    media: list[str],
    question: str,
    *,
    frames: Sampling,
    max_visual_tokens: int | None,
    long: dict[str, Any],
    max_new_tokens: int,
) -> Plan:
    """The plan of a question, whose media are read for it; `long` is what `read_long` gave."""
    from llava_next_video.assistant import Planner, Reader
    from llava_next_video.media import Limits

    planner = Planner.load(model)
    reader = Reader(
        processor=planner.processor,
        limits=Limits(),
        frames=frames,
        max_visual_tokens=max_visual_tokens,
        **long,
    )
    return planner.plan(reader.asked(media, question), new_tokens=max_new_tokens)


def plan_text(plan: Plan) -> str:
    """The plan for a reader, a line for each medium and three more."""
    lines = [
        f"{medium.name}: {'picture' if medium.frames is None else f'{medium.frames} frames'}, "
        f"{medium.tokens} visual tokens"
        for medium in plan.media
    ]
    kind = "" if plan.rope_kind in ("default", "linear") else f"{plan.rope_kind} "
    scaled = f"{kind}rope factor {plan.rope_factor:g}"
    lines += [
        f"prompt {plan.prompt_tokens} tokens ({plan.visual_tokens} visual), answer up to {plan.new_tokens}: "
        f"{plan.tokens} of {plan.context} that the context holds ({scaled})",
        f"keys and values: {plan.key_value_bytes / 2**20:.1f} MiB in 16 bits, twice that in 32",
    ]
    most = "" if plan.frames_that_fit is None else f"; up to {plan.frames_that_fit} frames a clip would fit"
    if plan.fits:
        return "\n".join([*lines, f"it fits{most}"])
    return "\n".join([*lines, f"it does not fit{most}, or --rope-factor {plan.rope_factor_needed:g}"])
