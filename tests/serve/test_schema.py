"""Whatever the description of the API allows, or nearly so, is answered or refused, never failed at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.serve.conftest import Running

pytestmark = pytest.mark.slow

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,unsupported_method"


def test_no_request_that_can_be_described_makes_the_server_fail(server: Running, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--no-color",
         "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "40",
         "--max-time", "90", "--request-timeout", "60", "--seed", "1", "--no-shrink",
         "--generation-database", "none", "--warnings", "off", "--continue-on-failure"],
        cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert server.rests_within(2)
