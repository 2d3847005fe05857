"""Loading with fewer bits: what is left alone, what is refused, what was done.

By default only the language model is quantised, which has most of the weights: tower, projector and head keep
their bits. (transformers 5 leaves only the head alone.)
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.quantizers import AutoQuantizationConfig

from llava_next_video.errors import ConfigError, LlavaNextVideoError, MissingExtraError
from llava_next_video.model.configuration import LlavaNextVideoConfig
from llava_next_video.model.layouts import in_memory

# With and without the prefix: the network without a head has none.
UNQUANTISED = (
    "model.vision_tower",
    "model.multi_modal_projector",
    "model.vision_resampler",
    "vision_tower",
    "multi_modal_projector",
    "vision_resampler",
    "lm_head",
)
_SPARED = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")  # one name for each library
_WHERE = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def quantisation(name: str, settings: dict[str, Any]) -> Any:
    """What a checkpoint is, or is to be, quantised with; None where it keeps its bits.

    Args:
        name: Folder or hub name.
        settings: Arguments of `from_pretrained`. The quantisation among them is replaced by one that leaves
            tower, projector and head alone; a config is added where the one of the checkpoint names modules
            as older versions of transformers did.

    Raises:
        ConfigError: It is none of transformers' quantisation configs, or cannot be done here.
        MissingExtraError: The package behind it is not installed.
    """
    config = _config_of(name, settings)
    stored, given = getattr(config, "quantization_config", None), settings.get("quantization_config")
    if stored is not None and config is not None:
        refuse_missing(stored)
        listed = stored.get(_SPARED[0]) if isinstance(stored, dict) else None
        if listed and (names := [current_name(module) for module in listed]) != listed:
            config.quantization_config = stored | {_SPARED[0]: names}
            settings["config"] = config
        return stored
    if given is None:
        return None
    tied = config is None or config.tie_word_embeddings or config.text_config.tie_word_embeddings
    settings["quantization_config"] = sparing(given, tied=bool(tied))
    if config is not None:
        try_out(settings["quantization_config"], *_target(settings, config))
    return settings["quantization_config"]


def _config_of(name: str, settings: Mapping[str, Any]) -> LlavaNextVideoConfig | None:
    """The config that will be loaded; None where there is none by that name, as beside an adapter."""
    config = settings.get("config")
    if isinstance(config, LlavaNextVideoConfig):
        return config
    where = {key: settings[key] for key in _WHERE if settings.get(key) is not None}
    try:
        return LlavaNextVideoConfig.from_pretrained(name, **where)
    except OSError:
        return None


def bitsandbytes_config(bits: Literal[4, 8]) -> BitsAndBytesConfig:
    """8 bits with outliers apart (LLM.int8), or 4 bits (NF4) whose scales have 8.

    Raises:
        MissingExtraError: bitsandbytes or accelerate is not installed.
    """
    refuse_missing({"quant_method": "bitsandbytes"})
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _target(settings: Mapping[str, Any], config: LlavaNextVideoConfig) -> tuple[torch.device, torch.dtype]:
    """Where the weights will be, and in which numbers."""
    place, dtype = settings.get("device_map"), settings.get("dtype", settings.get("torch_dtype"))
    if isinstance(place, dict):
        place = next(iter(place.values()), None)
    if isinstance(place, str) and place in ("auto", "balanced", "balanced_low_0", "sequential"):
        place = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(dtype, torch.dtype):
        dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    return torch.device("cpu" if place in (None, "disk") else place), dtype


def sparing(given: Any, *, tied: bool) -> Any:
    """A copy of a quantisation config that leaves tower, projector and head alone.

    Modules that the config itself leaves alone are taken instead; they may be named as in older versions of
    transformers (`vision_tower` for `model.vision_tower`).

    Args:
        given: What the caller passed to `from_pretrained`, or a dictionary of a config.json.
        tied: The head has the weights of the embeddings, so it is never quantised.

    Raises:
        ConfigError: It is none of transformers' quantisation configs.
        MissingExtraError: The package behind it is not installed.
    """
    refuse_missing(given)
    try:
        config = AutoQuantizationConfig.from_dict(given) if isinstance(given, Mapping) else copy.copy(given)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"quantization_config: {_sentence(error)}") from error
    name = next((name for name in _SPARED if hasattr(config, name)), None)
    if name is not None:
        listed = getattr(config, name)
        modules = list(UNQUANTISED) if listed is None else [current_name(module) for module in listed]
        if tied and not any(module.endswith("lm_head") for module in modules):
            modules.append("lm_head")
        setattr(config, name, modules)
    return config


def current_name(module: str) -> str:
    """The name of a module of ours in today's layout.

    >>> current_name("vision_tower"), current_name("language_model.lm_head"), current_name("lm_head")
    ('model.vision_tower', 'lm_head', 'lm_head')
    """
    return in_memory(f"{module}.").removesuffix(".")


def refuse_missing(given: Any) -> None:
    """Raise when the package behind a quantisation config is not installed.

    Raises:
        MissingExtraError: Its name.
    """
    method = _setting(given, "quant_method") or ("bitsandbytes" if _bits(given) else "")
    package = next(
        (name for name in ("bitsandbytes", "torchao") if name in getattr(method, "value", method)), None
    )
    if package is None:
        return
    for needed in (package, "accelerate"):
        if importlib.util.find_spec(needed) is None:
            way = "'llava-next-video[quant]'" if needed != "torchao" else "torchao"
            raise MissingExtraError(f"weights quantised by {package} need {needed}; pip install {way}")


@contextmanager
def named_refusals(name: str, config: Any) -> Iterator[None]:
    """Turn what transformers and the quantising library refuse into one sentence.

    Raises:
        ConfigError: With the library's reason.
    """
    try:
        yield
    except (torch.OutOfMemoryError, LlavaNextVideoError):
        raise
    except (ImportError, ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
        reason = _sentence(error)
        if isinstance(config, Mapping):
            raise ConfigError(f"{name} is quantised, and cannot be loaded here: {reason}") from error
        kind = type(config).__name__
        raise ConfigError(f"{name} cannot be quantised with this {kind} here: {reason}") from error


def try_out(config: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Quantise a small matrix with torchao, whose own complaint transformers replaces by a table.

    Raises:
        ConfigError: torchao cannot do this on that device or with that number format.
    """
    if type(config).__name__ != "TorchAoConfig":
        return
    from torchao.quantization import quantize_

    trial = nn.Sequential(nn.Linear(256, 256, bias=False, device=device, dtype=dtype))
    with named_refusals("a matrix", config), torch.no_grad():
        quantize_(trial, config.quant_type)
        answer = trial(torch.ones(1, 256, device=device, dtype=dtype))
    if not bool(torch.isfinite(answer).all()):
        raise ConfigError(
            f"{type(config.quant_type).__name__} of torchao overflows in {dtype} on {device}; give dtype="
            "torch.bfloat16 or torch.float32"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedRow:
    """One line of the table of what was quantised.

    Attributes:
        kinds: How many matrices of the part are held by which class; `Linear` has all its bits.
        megabytes: All weights of the part as they are held, with scales.
    """

    part: str
    kinds: Mapping[str, int]
    megabytes: float


_PARTS = ("vision_tower", "multi_modal_projector", "language_model", "lm_head")


def quantised_table(model: nn.Module) -> list[QuantisedRow]:
    """For tower, projector, language model and head: which matrices have fewer bits, and what they weigh."""
    kinds: dict[str, dict[str, int]] = {part: {} for part in _PARTS}
    held = dict.fromkeys(_PARTS, 0)
    seen: set[int] = set()
    for name, module in model.named_modules():
        part = next((piece for piece in name.split(".") if piece in _PARTS), None)
        if part is None:
            continue
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                held[part] += _bytes_of(parameter)
        if isinstance(module, nn.Linear):
            weight = type(module.weight.data).__name__
            kind = type(module).__name__ if weight == "Tensor" else weight
            kinds[part][kind] = kinds[part].get(kind, 0) + 1
    return [QuantisedRow(part=part, kinds=kinds[part], megabytes=held[part] / 1e6) for part in _PARTS]


def quantised_text(rows: Sequence[QuantisedRow]) -> str:
    """The table as people read it.

    >>> print(quantised_text([QuantisedRow(part="lm_head", kinds={"Linear": 1}, megabytes=0.25)]))
    part                        MB  matrices
    lm_head                   0.25  1 Linear
    """
    lines = [f"{'part':<22}{'MB':>8}  matrices"]
    for row in rows:
        told = ", ".join(f"{count} {kind}" for kind, count in row.kinds.items())
        lines.append(f"{row.part:<22}{row.megabytes:>8.2f}  {told}")
    return "\n".join(lines)


def is_quantised(model: nn.Module) -> bool:
    """Whether its weights were loaded with fewer bits."""
    return getattr(model, "hf_quantizer", None) is not None


def quantised_with(model: Any) -> dict[str, object] | None:
    """What the quantisation config says with which its weights were loaded, as plain JSON values, if any."""
    if not is_quantised(model):
        return None
    told: dict[str, object] = json.loads(model.hf_quantizer.quantization_config.to_json_string())
    return told


def _bytes_of(weight: Tensor) -> int:
    """Bytes of a weight with its scales."""
    if hasattr(weight, "__tensor_flatten__"):
        names, _ = weight.__tensor_flatten__()
        return sum(getattr(weight, name).nbytes for name in names)
    state = getattr(weight, "quant_state", None)
    own = weight.numel() * weight.element_size()
    scales = [getattr(weight, "SCB", None)]
    if state is not None:
        scales += [state.absmax, getattr(getattr(state, "state2", None), "absmax", None)]
    return own + sum(scale.nbytes for scale in scales if isinstance(scale, Tensor))


def _setting(given: Any, name: str) -> Any:
    return given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)


def _bits(given: Any) -> bool:
    return bool(_setting(given, "load_in_4bit") or _setting(given, "load_in_8bit"))


def _sentence(error: BaseException) -> str:
    """The first sentence of a message."""
    return " ".join(str(error).split()).partition(". ")[0].removesuffix(".")
