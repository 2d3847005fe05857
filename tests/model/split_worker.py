"""One of two processes that share a network: prints the ids that it generates."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.model.parallel import split_text


def main(checkpoint: Path, meeting: Path, rank: int, ids: list[int]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    whole = sum(parameter.numel() for parameter in model.parameters())
    split_text(model, init_device_mesh("cpu", (2,)))
    mine = sum(
        parameter.to_local().numel() if hasattr(parameter, "to_local") else parameter.numel()
        for parameter in model.parameters()
    )
    with torch.no_grad():
        out = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
        )
    sys.stdout.write(json.dumps({"ids": out[0].tolist(), "share": mine / whole}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
