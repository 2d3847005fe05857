"""The tiny network: one definition, used by every stage."""

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
)

from llava_next_video.size import Size

TILE, PATCH, POOL, FRAMES = 64, 8, 2, 8
GRID, CELLS = TILE // PATCH, TILE // PATCH // POOL
VISION, WIDTH, LAYERS = 128, 192, 8
PINPOINTS = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]
FRAME_SIZE = Size(TILE, TILE)
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
SPREAD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def make_network(tokenizer, seed: int = 0):
    """A LLaVA-NeXT-Video network with random weights."""
    vision = CLIPVisionConfig(
        hidden_size=VISION,
        intermediate_size=4 * VISION,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=TILE,
        patch_size=PATCH,
        projection_dim=VISION,
        hidden_act="gelu_pytorch_tanh",
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    config = LlavaNextVideoConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        spatial_pool_mode="average",
        spatial_pool_stride=POOL,
        image_grid_pinpoints=PINPOINTS,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return LlavaNextVideoForConditionalGeneration(config)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels between 0 and 1 as the tower wants them."""
    return (pixels - MEAN) / SPREAD
