"""The whole network as one graph, in a process without the shape checks that cannot be traced."""

import subprocess
import sys

import pytest

PROGRAM = """
import torch
from transformers import CLIPVisionConfig, LlamaConfig
from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
model = LlavaNextVideoForConditionalGeneration(
    LlavaNextVideoConfig(
        CLIPVisionConfig(**sizes, image_size=56, patch_size=14),
        LlamaConfig(**sizes, vocab_size=120),
        image_token_index=101,
        video_token_index=100,
        image_grid_pinpoints=[[56, 112]],
    )
).eval()
clip = {"pixel_values_videos": torch.randn(1, 2, 3, 56, 56)}
image = {"pixel_values": torch.randn(1, 3, 3, 56, 56), "image_sizes": [[40, 90]]}
tokens = model.model.image_layouts([[40, 90]])[0].tokens
for ids, media in (([100] * 8, clip), ([101] * tokens, image)):
    inputs = {"input_ids": torch.tensor([[1, *ids, 6]]), **media}
    compiled = torch.compile(model.forward, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)
"""


@pytest.mark.slow
def test_prompts_with_media_compile_to_one_graph_each():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
