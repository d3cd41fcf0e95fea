"""Builds containers/Dockerfile and runs the whole `digits` pipeline in it, step by step, against the same run here.

    make test-container                      as root where no docker daemon answers

Exit code 0: all claims hold, or there is no engine and the line says why. Anything else is a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.compile import content_tag
from tests.container.base import base_image, served, wheelhouse
from tests.container.engine import Engine, NoEngineError, engine

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("TEXTDIFFUSION_CONTAINER_CACHE") or ROOT / "build" / "container")
SMALL = {"train.examples": 6400, "sample.count": 200, "evaluate.count": 200, "sample.steps": 8}
SAME = ("data_hash", "content_sha256", "weights_sha256", "samples_sha256")


def main() -> int:
    """The whole test."""
    try:
        with engine(CACHE) as docker:
            image = build(docker)
            look_inside(docker, image)
            with tempfile.TemporaryDirectory(prefix="textdiffusion-container-") as folder:
                compare(docker, image, Path(folder))
    except NoEngineError as error:
        print(f"SKIPPED: {error}")
        return 0
    print("PASSED")
    return 0


def build(docker: Engine) -> str:
    """The image, built as `make image` does but for its base and its package index."""
    image, base = f"textdiffusion:{content_tag()}", base_image(docker, CACHE)
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    began = time.monotonic()
    with served(wheelhouse(ROOT / "requirements.lock", CACHE)) as settings, tempfile.NamedTemporaryFile("w") as secret:
        secret.write(settings)
        secret.flush()
        docker.docker(
            *("build", "--progress", "plain", "--network", "host", "--file", "containers/Dockerfile", "--tag", image),
            *("--secret", f"id=pip,src={secret.name}", "--build-arg", f"BASE_IMAGE={base}"),
            *("--build-arg", f"REVISION={revision or 'unknown'}", str(ROOT)),
            quiet=False,
        )
    facts = json.loads(docker.docker("image", "inspect", image))[0]
    assert facts["Config"]["User"] == "10001"
    assert facts["Config"]["Labels"]["org.opencontainers.image.revision"] == (revision or "unknown")
    assert "127.0.0.1" not in docker.docker("history", "--no-trunc", image), "the index's settings are in a layer"
    size, layers = facts["Size"] / 1e9, len(facts["RootFS"]["Layers"])
    print(f"built {image} on {base}: {size:.2f} GB, {layers} layers, {time.monotonic() - began:.0f} s")
    return image


def look_inside(docker: Engine, image: str) -> None:
    """The entry point, on a read-only root file system: doctor, a step's name, a plain command, torchrun, the bill."""
    run = ("run", "--rm", "--read-only", "--tmpfs", "/tmp:exec", "--cap-drop", "ALL", image)
    checks = json.loads(docker.docker(*run, "doctor", "--inside", "--json"))
    print("\n".join(f"  {row['check']}: {row['state']}: {row['found']}" for row in checks))
    assert {row["state"] for row in checks} == {"ok"}
    assert "train" in docker.docker(*run, "steps").splitlines()
    assert docker.docker(*run, "sh", "-c", "id -u; touch /app/x 2>/dev/null || echo read-only").split() == [
        "10001",
        "read-only",
    ]
    program = (  # one write for each line: both processes have the same pipe
        "import os, torch.distributed as d; d.init_process_group('gloo');"
        " os.write(1, f'of {d.get_world_size()} {os.getuid()}\\n'.encode())"
    )
    said = docker.docker(
        *run, "torchrun", "--standalone", "--nproc-per-node=2", "--no-python", "python3", "-c", program
    )
    assert said.count("of 2 10001") == 2, said
    bill = json.loads(docker.docker(*run, "cat", "/opt/venv/sbom.cdx.json"))
    kinds = [part["purl"].split("/")[0] for part in bill["components"]]
    print(f"  bill of materials: {kinds.count('pkg:pypi')} Python and {kinds.count('pkg:deb')} Debian packages")
    assert any(part["name"] == "torch" for part in bill["components"])


def compare(docker: Engine, image: str, folder: Path) -> None:
    """`textdiffusion run digits` in containers and as subprocesses: same artifacts."""
    folder.chmod(0o755)
    inside = pipeline(folder / "docker", {**docker.environment(), "TEXTDIFFUSION_IMAGE": image}, "docker")
    outside = pipeline(folder / "local", {**os.environ, "TEXTDIFFUSION_IMAGE": image}, "local")
    assert {step["name"]: step["state"] for step in inside["steps"]} == {
        step["name"]: step["state"] for step in outside["steps"]
    }
    left, right = hashes(inside), hashes(outside)
    for name in sorted(left | right):
        print(f"  {name}: {left.get(name)} {'==' if left.get(name) == right.get(name) else '!='} {right.get(name)}")
    assert left == right
    assert {key.split("/")[-1] for key in left} >= {"weights_sha256", "content_sha256"}
    for name, fact in inside["metrics"].items():
        assert fact["value"] == outside["metrics"][name]["value"], name
    print(
        f"  {len(inside['metrics'])} metrics equal; {inside['seconds']} s in containers, {outside['seconds']} s without"
    )


def pipeline(folder: Path, environment: Mapping[str, str], runner: str) -> dict[str, Any]:
    """The facts of a finished run of `digits` with a small budget, in a folder of its own."""
    folder.mkdir()
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "textdiffusion", "run", "digits", "--json", "--runner", runner, *settings]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TEXTDIFFUSION_CODE_VERSION": "test"},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        for log in sorted(folder.rglob("log.txt")):
            print(f"--- {log}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
        raise SystemExit(f"FAILED: digits with --runner {runner} ended with exit code {done.returncode}")
    return dict(json.loads(done.stdout))


def hashes(run: Mapping[str, Any]) -> dict[str, str]:
    """What stands for the content of each artifact, by step and name."""
    return {
        f"{step['name']}/{name}/{key}": artifact["metadata"][key]
        for step in run["steps"]
        for name, artifact in (step.get("artifacts") or {}).items()
        for key in SAME
        if key in artifact["metadata"]
    }


if __name__ == "__main__":
    if shutil.which("git") is None:
        print("note: no git; the image's revision is unknown")
    sys.exit(main())
