"""Steps in containers: what is mounted, and the errors of a daemon or an image that is not there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from factory.run_folder import STORE, Run

LABEL = "textdiffusion-run"
SHARE_OF_MEMORY = 0.9  # of the engine's machine, that a step may take where nothing else is set
IMAGE_USER = 10001  # of containers/Dockerfile


@dataclass(frozen=True)
class Limits:
    """What a step's container may take of the machine.

    Args:
        memory: in docker's words, 8g; empty: `SHARE_OF_MEMORY` of what the engine has.
        processes: how many processes and threads.
    """

    memory: str = ""
    processes: int = 4096

    def options(self, engine: Mapping[str, Any]) -> dict[str, Any]:
        """As docker's options; `engine` is what the daemon says of its machine."""
        memory = self.memory or int(SHARE_OF_MEMORY * int(engine.get("MemTotal") or 0))
        return {"pids_limit": self.processes, **({"mem_limit": memory} if memory else {})}


def mounted_folders(run: Run, runs: Path, registry: str, env: Mapping[str, str]) -> dict[str, bool]:
    """Folders that steps need, at the same path inside; True: read-only."""
    (runs / STORE).mkdir(parents=True, exist_ok=True)  # kfp.local mounts it too; made by the daemon it would be root's
    folders = {str(runs): False}
    if not storage.is_remote(env["TEXTDIFFUSION_WORK"]):
        folders[env["TEXTDIFFUSION_WORK"]] = False
    if not storage.is_remote(registry):
        folders[registry] = False
    data_dir = run.facts["config"]["data"].get("data_dir")
    if data_dir and not storage.is_remote(data_dir):
        folders[data_dir] = True
    return folders


@contextlib.contextmanager
def docker_runner(
    run: str, image: str, folders: Mapping[str, bool], env: Mapping[str, str], limits: Limits
) -> Iterator[Any]:
    """kfp.local's DockerRunner; containers that still run when the block is interrupted are stopped.

    Raises:
        UserError: the docker package, the daemon or the image is missing.
    """
    from kfp import local

    try:
        import docker
    except ImportError:
        raise UserError("--runner docker needs the Python package docker: pip install docker") from None
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise UserError(f"--runner docker: no docker daemon answers: {error}") from None
    there = {tag for listed in client.images.list() for tag in listed.tags}
    if image not in there and "/" not in image:
        raise UserError(f"--runner docker: no image {image} here: make image")
    user = unprivileged_user([Path(folder) for folder, read_only in folders.items() if not read_only])
    engine = client.info()
    gpus = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]
    try:
        yield local.DockerRunner(
            environment=dict(env),
            mounts=[docker.types.Mount(path, path, "bind", read_only=only) for path, only in folders.items()],
            user=user,
            read_only=True,
            tmpfs={"/tmp": "mode=1777,exec"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            device_requests=gpus if "nvidia" in engine.get("Runtimes", {}) else [],
            **limits.options(engine),
            labels={LABEL: run},
        )
    except BaseException:
        for container in client.containers.list(filters={"label": f"{LABEL}={run}"}):
            container.stop(timeout=30)
        raise
    finally:
        client.close()


def checks_inside(image: str) -> list[dict[str, str]]:
    """What `doctor --inside` finds in a container of `image`, as restricted as the steps' containers are.

    Raises:
        UserError: there is no docker, no such image, or the container cannot answer.
    """
    if shutil.which("docker") is None:
        raise UserError("doctor --inside needs docker, and there is none on PATH")
    command = ["docker", "run", "--rm", "--pull=never", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", image]
    done = subprocess.run([*command, "doctor", "--inside", "--json"], capture_output=True, text=True)
    try:
        return list(json.loads(done.stdout))
    except ValueError:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise UserError(f"{image}: {said.rstrip('.')}; build it with: make image") from None


def unprivileged_user(folders: Sequence[Path]) -> str:
    """`uid:gid` that containers run as: whoever calls, but never root. Makes `folders`, where it may write.

    Called by root, who may use the folders whoever owns them, it gives them to the image's own user.
    """
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0:
        return f"{os.getuid()}:{os.getgid()}"
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            if path.lstat().st_uid == 0:
                os.chown(path, IMAGE_USER, IMAGE_USER, follow_symlinks=False)
    return f"{IMAGE_USER}:{IMAGE_USER}"
