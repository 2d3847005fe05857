"""Libraries that we compare with and never need."""

import os
import sys
from pathlib import Path

import torch


def borrow_torchvision() -> bool:
    """Make torchvision importable from the folder LNV_REFEREES; False where it is not there.

    Its wheel is built for CUDA: beside a CPU build of torch its own operators cannot be loaded. Naming two of
    them is enough for what transformers uses. Call it before transformers is imported, which looks only once.
    """
    folder = Path(os.environ.get("LNV_REFEREES", ".venv/referees"))
    if not (folder / "torchvision").is_dir():
        return False
    sys.path.append(str(folder))
    if not torch.cuda.is_available():
        for operator in (
            "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        ):
            _NAMES.define(operator)
    return True


# Operators live as long as the library that named them.
_NAMES = torch.library.Library("torchvision", "FRAGMENT")
