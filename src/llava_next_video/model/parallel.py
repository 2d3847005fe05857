"""A network whose text layers are split among several devices, for those that one cannot hold.

Each process (one for each device, as `torchrun` starts them) keeps its share of every text layer; the tower,
the projector, the embeddings and the head are small beside them and stay whole.
"""

from __future__ import annotations

from typing import Any

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.parallel.style import ParallelStyle

from llava_next_video.errors import ConfigError

_BY_OUTPUT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
_BY_INPUT = ("self_attn.o_proj", "mlp.down_proj")


def split_text(model: Any, mesh: DeviceMesh) -> None:
    """Split the text layers of a loaded network, in place; every process calls it, and then does the same.

    Heads and inner features are dealt out; each layer adds up what the processes have twice, behind attention
    and behind the MLP. The weights are those of the first process.

    Raises:
        ConfigError: The heads cannot be dealt out evenly.

    Source: Megatron-LM (Shoeybi et al. 2019), section 3; torch, `torch.distributed.tensor.parallel`.
    """
    refuse_uneven(model.config.text_config, mesh.size())
    plan: dict[str, ParallelStyle] = {name: ColwiseParallel() for name in _BY_OUTPUT}
    plan |= {name: RowwiseParallel() for name in _BY_INPUT}
    for layer in model.model.language_model.layers:
        parallelize_module(layer, mesh, plan)


def refuse_uneven(text: Any, count: int) -> None:
    """Raise unless so many devices can share the heads and inner features of a text configuration.

    Raises:
        ConfigError: They cannot.
    """
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        if getattr(text, name) % count:
            raise ConfigError(
                f"{name} is {getattr(text, name)}, which {count} devices cannot share evenly; take a divisor"
            )
