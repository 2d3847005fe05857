"""OpenVINO GenAI on a checkpoint of random weights: runs in an environment of its own.

    python openvino_peer.py export FOLDER             # write the checkpoint and its 8-bit OpenVINO form
    python openvino_peer.py measure FOLDER THREADS    # one line of JSON for each line on stdin

Needs `torch torchvision transformers==4.57.6 optimum-intel openvino openvino-genai openvino-tokenizers nncf`:
optimum-intel dropped this model for transformers 5. Called by engine_openvino.py, which stands beside it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

SIDE, PATCH, FRAMES = 336, 14, 8
QUESTION = "what happens in this video and who does it and where does it happen"


def export(folder: Path) -> None:
    """The `mid` shape with random weights, a small tokenizer, and the 8-bit export beside it."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # built for CUDA, beside a torch for processors
        names = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            names.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlamaTokenizerFast,
        LlavaNextImageProcessor,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
    )

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [QUESTION] * 9, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = LlamaTokenizerFast(tokenizer_object=core, pad_token="<pad>", legacy=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<video>"]})
    image, video = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    torch.manual_seed(0)
    config = LlavaNextVideoConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
        ),
        image_token_index=image,
        video_token_index=video,
    )
    model = LlavaNextVideoForConditionalGeneration(config).eval()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(**size),
        image_processor=LlavaNextImageProcessor(**size),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{{ messages[0]['content'] }}",
    ).save_pretrained(folder)
    from optimum.commands.optimum_cli import main

    sys.argv = ["optimum-cli", "export", "openvino", "--model", str(folder), "--task", "image-text-to-text"]
    sys.argv += ["--weight-format", "int8", str(folder / "openvino")]
    main()


def measure(folder: Path, threads: int) -> None:
    """For each line on stdin (a number of new tokens) one request about a new clip of noise."""
    import numpy as np
    import openvino
    import openvino_genai

    pipe = openvino_genai.VLMPipeline(str(folder / "openvino"), "CPU", INFERENCE_NUM_THREADS=threads)
    print(json.dumps({"openvino_genai": openvino_genai.__version__}), flush=True)
    for turn, line in enumerate(sys.stdin):
        pixels = np.random.default_rng(turn).integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = int(line)
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        start, start_cpu = time.perf_counter(), time.process_time()
        found = pipe.generate(
            f"USER: <video>\n{QUESTION} ASSISTANT:",
            videos=[openvino.Tensor(pixels)],
            generation_config=config,
        )
        told = found.perf_metrics
        print(
            json.dumps(
                {
                    "total_s": time.perf_counter() - start,
                    "total_cpu_s": time.process_time() - start_cpu,
                    "first_token_s": told.get_ttft().mean / 1000,
                    "token_ms": told.get_tpot().mean,
                    "prompt_tokens": told.get_num_input_tokens(),
                    "new_tokens": told.get_num_generated_tokens(),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1] == "export":
        export(Path(sys.argv[2]))
    else:
        measure(Path(sys.argv[2]), int(sys.argv[3]))
