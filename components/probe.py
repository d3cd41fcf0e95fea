"""What a container of the service can do, which no emulator can tell: the steps of `textdiffusion probe`."""

# mypy: disable-error-code="type-arg, untyped-decorator"
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kfp import dsl

from components.step import component

DRIVER = Path("/proc/driver/nvidia/version")
HYPERTUNE = Path("/var/hypertune")


@component("look")
def look(facts: dsl.Output[dsl.Artifact]) -> None:
    """Writes facts.json: user, mounts, what the output's folder takes, GPU and driver, the file of trial metrics."""
    import json
    from pathlib import Path

    from components.probe import observe
    from components.step import step
    from core.printable import printable_json, say

    with step():
        folder = Path(facts.path)
        folder.mkdir(parents=True, exist_ok=True)
        observed = json.dumps(observe(folder), indent=2)
        (folder / "facts.json").write_text(observed, encoding="utf-8")
        say(printable_json(observed), lines=True)


@component("exit-2")
def exit_2(attempts: str) -> None:
    """Leaves a file under `attempts`, a gs:// prefix, and exits with 2: their number is how often it was begun."""
    import uuid

    from components.step import step
    from core import storage
    from core.errors import UserError
    from core.names import inside

    storage.write_bytes(inside(attempts, f"begun-{uuid.uuid4().hex}"), b"")  # before a restarted step is refused
    with step():
        raise UserError("this step is there to fail")


def observe(folder: Path) -> dict[str, Any]:
    """The facts of this container.

    Args:
        folder: an empty one on the mounted bucket.
    """
    return {
        "user": {"uid": os.getuid(), "gid": os.getgid(), "home": os.environ.get("HOME", "")},
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "mounts": [line for line in _lines(Path("/proc/mounts")) if " fuse" in line or "gcs" in line],
        "folder": dict(_operations(folder)),
        "gpu": _gpu(),
        "trial_metrics": {
            "file": os.environ.get("CLOUD_ML_HP_METRIC_FILE", ""),
            "folder": HYPERTUNE.is_dir(),
            "writable": os.access(HYPERTUNE, os.W_OK),
        },
        "variables": sorted(name for name in os.environ if name.startswith(("AIP_", "CLOUD_ML_", "CLUSTER_", "TF_"))),
    }


def _operations(folder: Path) -> Iterator[tuple[str, str]]:
    """(operation, ok or the name of the error) of each that a way of publishing could rely on, and modes."""
    file, inner = folder / "file", folder / "inner"
    inner.mkdir()

    def append() -> None:
        with file.open("ab") as stream:
            stream.write(b"b")

    def sync(path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename_open() -> None:
        with (folder / "open").open("wb") as stream:
            stream.write(b"a")
            (folder / "open").rename(folder / "closed")

    steps: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("write", lambda: file.write_bytes(b"a")),
        ("overwrite", lambda: file.write_bytes(b"c")),
        ("append", append),
        ("fsync a file", lambda: sync(file)),
        ("fsync a folder", lambda: sync(folder)),
        ("rename a file", lambda: file.rename(inner / "file")),
        ("rename over a file", lambda: (file.write_bytes(b"d"), file.rename(inner / "file"))),
        ("rename an open file", rename_open),
        ("hard link", lambda: (folder / "hard").hardlink_to(inner / "file")),
        ("symbolic link", lambda: (folder / "soft").symlink_to("inner")),
        ("chmod", lambda: (inner / "file").chmod(0o600)),
        ("rename a folder", lambda: inner.rename(folder / "other")),
    )
    for name, do in steps:
        try:
            do()
        except OSError as error:
            yield name, errno.errorcode.get(error.errno or 0, str(error))
        else:
            yield name, "ok"
    left = next(path for path in (folder / "other", inner) if path.is_dir())
    yield "mode of a folder", stat.filemode(left.stat().st_mode)
    files = [path for path in left.iterdir() if path.is_file()]
    yield "mode of a file after chmod 600", stat.filemode(files[0].stat().st_mode) if files else "no file"


def _gpu() -> dict[str, Any]:
    import torch

    available = torch.cuda.is_available()
    return {
        "driver": next(iter(_lines(DRIVER)), "none"),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda or "none",
        "architectures": torch.cuda.get_arch_list(),
        "usable": available,
        "devices": torch.cuda.device_count(),
        "name": torch.cuda.get_device_name() if available else "none",
        "capability": list(torch.cuda.get_device_capability()) if available else [],
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().split("\n")
    except OSError:
        return []
