"""A network that is split among processes says what it says whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from llava_next_video.errors import ConfigError
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.model.parallel import refuse_uneven


@pytest.mark.slow
def test_two_processes_generate_the_ids_of_one(tmp_path: Path, tiny_checkpoint: Path) -> None:
    ids = [1, *range(20, 40)]
    command = [sys.executable, str(Path(__file__).with_name("split_worker.py")), str(tiny_checkpoint)]
    both = [
        subprocess.Popen(
            [*command, str(tmp_path / "meeting"), str(rank), json.dumps(ids)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [json.loads(one.communicate(timeout=120)[0].splitlines()[-1]) for one in both]
    whole = LlavaNextVideoForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    out = whole.eval().generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=12,
    )
    assert [one["ids"] for one in told] == [out[0].tolist()] * 2
    # Of the tiny network, the text layers are a quarter; each process keeps half of them.
    assert all(0.5 < one["share"] < 0.95 for one in told)


def test_heads_that_cannot_be_dealt_out_evenly_are_refused() -> None:
    text = LlamaConfig(num_attention_heads=4, num_key_value_heads=2, intermediate_size=128)
    refuse_uneven(text, 2)
    with pytest.raises(ConfigError, match="num_key_value_heads is 2, which 4 devices cannot share evenly"):
        refuse_uneven(text, 4)
