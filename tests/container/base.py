"""A base image with Python, and the packages that are installed on it.

Without a registry the base is made of Debian's own packages by debootstrap. The wheels of requirements.lock are fetched
here, by pip as this machine has it configured, and served on the loopback interface while the image is built; so
the build needs neither this machine's index settings nor its certificates.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.container.engine import PACKAGES, Engine, NoEngineError

DOCKERFILE = Path(__file__).parents[2] / "containers" / "Dockerfile"
REGISTRY_BASE = re.findall(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)[0]
DEBIAN_BASE = "debian-python:12"
INCLUDED = "python3,python3-pip,python3-venv,ca-certificates"


def base_image(engine: Engine, cache: Path) -> str:
    """Name of an image with Python of this interpreter's minor version.

    Raises:
        NoEngineError: it cannot be pulled, and debootstrap is not there.
    """
    for name in (REGISTRY_BASE, DEBIAN_BASE):
        if engine.docker("images", "--quiet", name):
            return name
    if sys.version_info[:2] == (3, 11):
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            command = [engine.program, "pull", "--quiet", REGISTRY_BASE]
            subprocess.run(command, env=engine.environment(), check=True, capture_output=True, timeout=120)
            return REGISTRY_BASE
    if shutil.which("debootstrap") is None:
        raise NoEngineError(f"{REGISTRY_BASE} cannot be pulled, and there is no debootstrap to make a base: {PACKAGES}")
    root = cache / "debian"
    if not (root / "usr/bin/python3").exists():
        print("base image: by debootstrap (a few minutes, once)", flush=True)
        command = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm", str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen(["tar", "-C", str(root), "--exclude=./proc/*", "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            [engine.program, "import", "-", DEBIAN_BASE], env=engine.environment(), stdin=tar.stdout, check=True
        )
    if tar.returncode:
        raise RuntimeError(f"tar of {root} ended with {tar.returncode}")
    return DEBIAN_BASE


def wheelhouse(lock: Path, cache: Path) -> Path:
    """A folder with every distribution of the lock file, its hashes checked, and what builds those that are sources."""
    name = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = cache / "wheels" / name
    if not folder.exists():
        print("wheels: pip download (once for each lock file)", flush=True)
        partial = folder.with_name(f"{name}.partial")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(partial)]
        subprocess.run([*pip, "--require-hashes", "--requirement", str(lock)], check=True)
        subprocess.run([*pip, "pip", "setuptools", "wheel"], check=True)
        partial.rename(folder)
    return folder


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Settings of pip with which a build on the host's network installs from `folder` and from nowhere else."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"[global]\nno-index = true\nfind-links = http://127.0.0.1:{server.server_port}/\n"
    finally:
        server.shutdown()
