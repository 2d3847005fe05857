"""How many positions the language model can tell apart."""

import copy
import math
import warnings
from dataclasses import replace
from typing import Any, TypeVar, cast, get_args

from torch import Tensor
from transformers import PreTrainedConfig

from llava_next_video.errors import CapacityError, ConfigError
from llava_next_video.long_video import RopeKind, RopeScaling

Config = TypeVar("Config", bound=PreTrainedConfig)


def context_limit(config: PreTrainedConfig) -> int:
    """Longest prompt plus answer, in tokens: the trained positions times the rope factor.

    Linear and dynamic scaling stretch `max_position_embeddings`; yarn stretches
    `original_max_position_embeddings`; llama3 and longrope configs state the stretched number themselves.

    >>> from transformers import LlamaConfig
    >>> context_limit(LlamaConfig(max_position_embeddings=4096))
    4096
    >>> scaling = {"type": "linear", "factor": 2.5}
    >>> context_limit(LlamaConfig(max_position_embeddings=4096, rope_scaling=scaling))
    10240
    """
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int):
        raise ConfigError(
            f"text_config ({text.model_type}) does not say its max_position_embeddings; add it to config.json"
        )
    scaling, kind = _rope(text), rope_kind_of(text)
    factor = scaling.get("factor") or 1.0
    if kind in ("linear", "dynamic"):
        return int(positions * factor)
    if kind == "yarn" and "original_max_position_embeddings" in scaling:
        return max(positions, int(scaling["original_max_position_embeddings"] * factor))
    return positions


def with_rope_factor(config: Config, factor: float) -> Config:
    """A copy whose language model scales its positions linearly by `factor`, so that longer clips fit.

    >>> from transformers import LlamaConfig
    >>> context_limit(with_rope_factor(LlamaConfig(max_position_embeddings=4096), 2.0))
    8192

    Source: LLaVA-NeXT-Video blog, "linear scaling": positions are divided by the factor before the rotation.
    """
    return with_rope(config, RopeScaling(factor=factor))


def with_rope(config: Config, rope: RopeScaling) -> Config:
    """A copy whose language model scales its positions so, in place of the scaling it had.

    Raises:
        ConfigError: The positions are scaled in another way already, which the weights are used to.
    """
    rope = with_kind(config, rope)
    trained = trained_positions(config, rope)
    longer = copy.deepcopy(config)
    text = longer.get_text_config()
    scaled: dict[str, Any] = {"rope_type": rope.kind, "type": rope.kind, "factor": rope.factor}
    if rope.kind == "yarn":
        scaled["original_max_position_embeddings"] = trained
        text.max_position_embeddings = int(trained * (rope.factor or 1.0))
    text.rope_parameters = _rope(text) | scaled
    return longer


def trained_positions(config: PreTrainedConfig, rope: RopeScaling) -> int:
    """How many positions a scaling of that kind stretches: those that the language model was trained on.

    Raises:
        ConfigError: The positions are scaled in another way already, which the weights are used to.
    """
    text, kind = config.get_text_config(), rope_kind_of(config)
    if kind not in ("default", "linear", with_kind(config, rope).kind):
        raise ConfigError(f"the positions are scaled by {kind} already; change its factor in text_config")
    return int(_rope(text).get("original_max_position_embeddings") or text.max_position_embeddings)


def with_kind(config: PreTrainedConfig, rope: RopeScaling) -> RopeScaling:
    """The scaling with what `auto` stands for: the config's own kind, which weights are used to, else yarn.

    Yarn keeps the distances of near tokens, which weights that never saw stretched positions count on.

    >>> from transformers import LlamaConfig
    >>> with_kind(LlamaConfig(), RopeScaling(kind="auto", factor=2.0))
    RopeScaling(kind='yarn', factor=2.0)

    Source: YaRN, arXiv 2309.00071; compared with the others in runs/blog (d).
    """
    if rope.kind != "auto":
        return rope
    own = rope_kind_of(config)
    return replace(rope, kind=cast(RopeKind, own) if own in get_args(RopeKind) else "yarn")


def rope_limit(config: PreTrainedConfig, rope: RopeScaling | None) -> int:
    """Longest prompt plus answer, in tokens, under a scaling with its factor; None: the checkpoint's own."""
    if rope is None:
        return context_limit(config)
    return int(trained_positions(config, rope) * (rope.factor or 1.0))


def chosen_rope(config: PreTrainedConfig, wish: RopeScaling | None, tokens: int) -> RopeScaling | None:
    """The scaling of a prompt and answer of so many tokens, with its factor; None: the checkpoint's own.

    A wish without a factor gets the checkpoint's own scaling where that is enough, else the least factor in
    halves: few different factors, so that pages can be shared. `with_kind` says what `auto` is.

    >>> from transformers import LlamaConfig
    >>> vicuna = LlamaConfig(max_position_embeddings=4096)
    >>> chosen_rope(vicuna, RopeScaling(kind="auto"), 4096)
    >>> chosen_rope(vicuna, RopeScaling(kind="auto"), 5608)
    RopeScaling(kind='yarn', factor=1.5)

    Raises:
        ConfigError: The positions are scaled in another way already.
    """
    if wish is None:
        return None
    wish, kind, factor = with_kind(config, wish), rope_kind_of(config), rope_factor_of(config)
    if wish.factor is None and kind != "dynamic" and tokens <= context_limit(config):
        return None
    trained = trained_positions(config, wish)
    if wish.factor is None:
        if kind == "dynamic" and tokens <= trained:
            return None
        wish = replace(wish, factor=max(1.0, math.ceil(2 * tokens / trained) / 2))
    if kind == "default":
        return None if wish.factor == 1 else wish
    # A checkpoint's own dynamic scaling changes while an answer grows; ours does not.
    return None if kind != "dynamic" and (kind, factor) == (wish.kind, wish.factor) else wish


def refuse_too_long(tokens: int, config: PreTrainedConfig) -> None:
    """Raise when that many tokens do not fit the context.

    Raises:
        CapacityError: with both numbers and the ways out.
    """
    limit = context_limit(config)
    if tokens <= limit:
        return
    now, enough = rope_factor_of(config), rope_factor_for(tokens, config)
    raise CapacityError(
        f"{tokens} tokens needed, {limit} fit the context; use fewer frames, a shorter text, "
        f"or a larger rope factor (now {now:g}; {enough:g} would do)"
    )


def rope_kind_of(config: PreTrainedConfig) -> str:
    """How the config scales positions, in transformers' names; `default` if it does not."""
    own = _rope(config.get_text_config())
    return str(own.get("rope_type", own.get("type", "default")))


def rope_factor_of(config: PreTrainedConfig) -> float:
    """How far the config stretches the trained positions; 1 if it does not."""
    return float(_rope(config.get_text_config()).get("factor") or 1.0)


def rope_factor_for(tokens: int, config: PreTrainedConfig) -> float:
    """The least rope factor, in halves, with which so many tokens fit; the config's own where that is enough.

    >>> from transformers import LlamaConfig
    >>> rope_factor_for(9000, LlamaConfig(max_position_embeddings=4096))
    2.5
    """
    limit, factor = context_limit(config), rope_factor_of(config)
    return factor if tokens <= limit else math.ceil(factor * tokens / limit * 2) / 2


def refuse_long_prompt(
    config: PreTrainedConfig, length: int, *, attention_mask: object, position_ids: Tensor | None
) -> None:
    """Raise when rows of that length, the cache included, do not fit the context.

    Padding and packed samples make a row longer than its prompts, so a row that looks too long is looked at
    again, on its device.

    Raises:
        CapacityError: with both numbers and the ways out.
    """
    if length <= context_limit(config):
        return
    if position_ids is not None:
        length = int(position_ids.max()) + 1
    elif isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
        length = int(attention_mask.sum(dim=1).max())
    refuse_too_long(length, config)


def warn_of_stray_rope_keys(text: PreTrainedConfig) -> None:
    """Warn when a rope factor stands at the wrong level of `text_config`, where nothing reads it.

    Source: transformers, `convert_llava_next_video_weights_to_hf.py`, which writes `factor` and `type` beside
    `rope_scaling` instead of into it.
    """
    stray = getattr(text, "factor", None)
    if not isinstance(stray, int | float) or _rope(text).get("factor") is not None:
        return
    warnings.warn(
        f"text_config has factor {stray} outside rope_scaling, so positions are not scaled and the context "
        f"holds {context_limit(text)} tokens; to scale them write "
        f'"rope_scaling": {{"type": "linear", "factor": {stray}}} into text_config',
        stacklevel=2,
    )


def _rope(text: PreTrainedConfig) -> dict[str, Any]:
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(text, name, None)
        if isinstance(found, dict):
            return found
    return {}
