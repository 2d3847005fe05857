"""How both networks are loaded, saved and initialised."""

import os
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from llava_next_video.checkpoint_name import folder_named
from llava_next_video.errors import CheckpointError
from llava_next_video.model.attention import named_attention
from llava_next_video.model.checkpoint import named_failures, refuse_folder, refuse_loading
from llava_next_video.model.configuration import LlavaNextVideoConfig
from llava_next_video.model.layouts import RENAMES, in_memory, on_hub
from llava_next_video.model.quantised import named_refusals, quantisation
from llava_next_video.model.scales import remembered_scales, restore_scales

# accelerate takes every name in a device map for a module; this one is a parameter by itself.
_NEWLINE_PLACED = r"The following device_map keys .*: \['(model\.)?image_newline'\]"


class LlavaNextVideoPreTrainedModel(PreTrainedModel):
    """Loads all four layouts of the weights, saves the layout of the hub."""

    config_class = LlavaNextVideoConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ("past_key_values",)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        for name in ("image_newline", "faster_token"):
            token = getattr(module, name, None)
            if isinstance(token, nn.Parameter):
                init.normal_(token, mean=0.0, std=token.shape[0] ** -0.5)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a folder or hub name: `PreTrainedModel.from_pretrained`, but nothing is made up.

        Raises:
            CheckpointError: weights are missing, of the wrong size or unknown (they are named), a file is
                corrupt, or there are only pickles.
            ConfigError: weights cannot be quantised as asked here.
            MissingExtraError: bitsandbytes, torchao or FlashAttention is asked for and not installed.
        """
        if kwargs.get("use_safetensors") is False:
            raise CheckpointError("use_safetensors=False opens a pickle, which can run code; use safetensors")
        if kwargs.get("gguf_file") is not None:
            raise CheckpointError(f"gguf_file={kwargs['gguf_file']!r}: GGUF is not read; use safetensors")
        name = str(pretrained_model_name_or_path)
        is_adapter = False
        if pretrained_model_name_or_path is not None:
            place = folder_named(pretrained_model_name_or_path)
            if place is not None:
                folder = place / kwargs.get("subfolder", "")
                is_adapter = (folder / "adapter_config.json").is_file()
                if not is_adapter:
                    refuse_folder(folder)
        wants_info = kwargs.pop("output_loading_info", False)
        allows_other_sizes = kwargs.pop("ignore_mismatched_sizes", False)
        kwargs["use_safetensors"] = True
        kwargs["key_mapping"] = (kwargs.get("key_mapping") or {}) | RENAMES
        quantised = quantisation(name, kwargs)
        with ExitStack() as told:
            told.enter_context(named_failures(name))
            if quantised is not None:
                told.enter_context(named_refusals(name, quantised))
            told.enter_context(named_attention(kwargs.get("attn_implementation")))
            told.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", _NEWLINE_PLACED, UserWarning)
            model, info = super().from_pretrained(
                pretrained_model_name_or_path,
                *args,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **kwargs,
            )
        if quantised is not None:
            model._scales = remembered_scales(model)
        if not is_adapter:
            head = () if hasattr(model, "lm_head") else ("lm_head.", "language_model.lm_head.")
            refuse_loading(name, info, allows_other_sizes=allows_other_sizes, spare=head)
        return (model, info) if wants_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *args: Any,
        state_dict: Mapping[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save as `PreTrainedModel.save_pretrained` does, with weights named as on the hub (layout A).

        Adapters, quantised weights and weights that were offloaded keep the names that they have in memory.
        """
        kwargs["save_original_format"] = False
        restore_scales(self, getattr(self, "_scales", {}))
        weights = self.state_dict() if state_dict is None else state_dict
        if (
            getattr(self, "_hf_peft_config_loaded", False)
            or getattr(self, "hf_quantizer", None) is not None
            or any(weight.is_meta for weight in weights.values())
        ):
            super().save_pretrained(save_directory, *args, state_dict=state_dict, **kwargs)
            return
        tied = self.all_tied_weights_keys
        super().save_pretrained(
            save_directory,
            *args,
            state_dict={self._saved_name(key): value for key, value in weights.items() if key not in tied},
            **kwargs,
        )

    def _saved_name(self, key: str) -> str:
        return on_hub(key if hasattr(self, "lm_head") else f"model.{key}")


def accept_every_layout(_module: nn.Module, state_dict: dict[str, Any], prefix: str, *_rest: Any) -> None:
    """A `load_state_dict` pre-hook that renames the keys: a resumed Trainer loads the files that we saved."""
    if not prefix:
        for key in list(state_dict):
            state_dict[in_memory(key)] = state_dict.pop(key)
