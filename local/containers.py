"""Steps in containers: what is mounted, and the errors of a daemon or an image that is not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from local.runs import Run

LABEL = "textdiffusion-run"


def mounted_folders(run: Run, runs: Path, registry: str, env: Mapping[str, str]) -> dict[str, bool]:
    """Folders that steps need, at the same path inside; True: read-only."""
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
def docker_runner(run: str, image: str, folders: Mapping[str, bool], env: Mapping[str, str]) -> Iterator[Any]:
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
    there = {tag for found in client.images.list() for tag in found.tags}
    if image not in there and "/" not in image:
        raise UserError(f"--runner docker: no image {image} here; docker build -f containers/Dockerfile -t {image} .")
    for folder, read_only in folders.items():
        if not read_only:
            Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        yield local.DockerRunner(
            environment={
                name: value
                for name, value in env.items()
                if name.startswith("TEXTDIFFUSION_") and name != "TEXTDIFFUSION_IMAGE"  # the task itself sets that one
            },
            mounts=[docker.types.Mount(path, path, "bind", read_only=only) for path, only in folders.items()],
            user=f"{os.getuid()}:{os.getgid()}",
            labels={LABEL: run},
        )
    except BaseException:
        for container in client.containers.list(filters={"label": f"{LABEL}={run}"}):
            container.stop(timeout=30)
        raise
    finally:
        client.close()
