"""A trained state to a folder in the hub layout: half-precision weights, tokenizer, processor, template."""

import argparse
from pathlib import Path

import torch
from network import PATCH, PINPOINTS, TILE, make_network
from text import make_tokenizer

from llava_next_video.processing import (
    LlavaNextImageProcessor,
    LlavaNextVideoImageProcessor,
    LlavaNextVideoProcessor,
    chat_template,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    out = Path(__file__).parent / "out"
    parser.add_argument("--state", type=Path, default=out / "states" / "seed0.pt")
    parser.add_argument("--out", type=Path, default=out / "export")
    given = parser.parse_args()
    tokenizer = make_tokenizer()
    network = make_network(tokenizer)
    network.load_state_dict(torch.load(given.state), strict=False)  # the head is tied to the embeddings
    network.generation_config.max_new_tokens = 64
    network.generation_config.do_sample = False
    network.half().save_pretrained(given.out)
    square = {"height": TILE, "width": TILE}
    processor = LlavaNextVideoProcessor(
        # Clips are squeezed into the square, so that nothing at their sides is cut off.
        video_processor=LlavaNextVideoImageProcessor(
            size=square, crop_size=square, do_center_crop=False, num_frames=8
        ),
        image_processor=LlavaNextImageProcessor(
            size=square, crop_size=square, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer=tokenizer,
        chat_template=chat_template("vicuna"),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
    )
    processor.save_pretrained(given.out)
    print(*(f"{file.stat().st_size:>9} {file.name}" for file in sorted(given.out.iterdir())), sep="\n")


if __name__ == "__main__":
    main()
