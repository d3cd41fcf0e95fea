"""A docker engine: the one that answers already, or one of our own that lives as long as the test does.

Own engines need root and Debian's docker.io and iptables. Their images and the build cache stay in the cache folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "apt-get install docker.io iptables debootstrap"


class NoEngineError(Exception):
    """Containers cannot be run here; the message says what is missing."""


@dataclass(frozen=True)
class Engine:
    """A docker daemon and a client program that can build with BuildKit."""

    host: str
    program: str

    def environment(self) -> dict[str, str]:
        return {**os.environ, **({"DOCKER_HOST": self.host} if self.host else {}), "DOCKER_BUILDKIT": "1"}

    def docker(self, *arguments: str, quiet: bool = True) -> str:
        """Runs a docker command; its output. Raises CalledProcessError if it fails, having shown why."""
        command = [self.program, *arguments]
        if not quiet:
            subprocess.run(command, env=self.environment(), check=True)
            return ""
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout, done.stderr, sep="\n")
            done.check_returncode()
        return done.stdout.strip()


@contextlib.contextmanager
def engine(cache: Path) -> Iterator[Engine]:
    """The engine to test in.

    Raises:
        NoEngineError: none answers, and none can be started.
    """
    program = _program()
    for host in (os.environ.get("DOCKER_HOST", ""), ""):
        found = Engine(host, program)
        if _answers(found):
            yield found
            return
    with _own(cache, program) as found:
        yield found


def _program() -> str:
    """The first docker client that can build with BuildKit: newer ones need the plugin buildx for it."""
    found = [path for path in (shutil.which("docker"), "/usr/bin/docker") if path and Path(path).exists()]
    for path in found:
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        said = subprocess.run([path, "build", "--help"], env=environment, capture_output=True, text=True, check=False)
        if "--secret" in said.stdout:
            return path
    raise NoEngineError(
        f"no docker client that can build with BuildKit: {PACKAGES}" if found else f"no docker: {PACKAGES}"
    )


def _answers(found: Engine) -> bool:
    return subprocess.run([found.program, "info"], env=found.environment(), capture_output=True).returncode == 0


@contextlib.contextmanager
def _own(cache: Path, program: str) -> Iterator[Engine]:
    if os.getuid() != 0:
        raise NoEngineError("no docker daemon answers, and only root can start one")
    for needed in ("dockerd", "iptables"):
        if shutil.which(needed) is None:
            raise NoEngineError(f"no docker daemon answers, and there is no {needed} to start one: {PACKAGES}")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="textdiffusion-engine-") as folder:
        host = f"unix://{folder}/docker.sock"
        log = cache / "dockerd.log"
        with log.open("wb") as stream:
            daemon = subprocess.Popen(
                [
                    *("dockerd", "--host", host, "--storage-driver", "overlay2"),
                    *("--data-root", str(cache / "engine"), "--exec-root", f"{folder}/exec"),
                    *("--pidfile", f"{folder}/docker.pid"),
                ],
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        try:
            found = Engine(host, program)
            deadline = time.monotonic() + 60
            while not _answers(found):
                if daemon.poll() is not None or time.monotonic() > deadline:
                    last = log.read_text(errors="replace").strip().splitlines()[-1:]
                    raise NoEngineError(f"dockerd does not run here: {' '.join(last)}")
                time.sleep(0.3)
            yield found
        finally:
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(60)
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait()
