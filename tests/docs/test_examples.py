"""The examples in docstrings give what they say."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent / "src"
# In a process of its own: behind the tests' shape checks doctest takes our functions for somebody else's.
PROGRAM = """
import doctest, importlib, sys

tried = {name: doctest.testmod(importlib.import_module(name)) for name in sys.argv[1:]}
sys.exit(", ".join(name for name, done in tried.items() if done.failed or not done.attempted) or None)
"""


@pytest.mark.slow
def test_the_examples_of_every_module_give_what_they_say() -> None:
    modules = [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(SOURCE.rglob("*.py"))
        if ">>> " in path.read_text()
    ]
    assert "llava_next_video.geometry" in modules
    command = [sys.executable, "-c", PROGRAM, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
