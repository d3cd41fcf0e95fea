"""Drives that lack what a disk has: links, syncing of folders, room, rights. One line, or it works without."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core import storage
from core.errors import UserError
from core.storage import drives
from core.storage.checkpoint import CheckpointStore
from core.storage.faults import StorageError, as_storage_error, every_refusal
from factory.run_folder import find_run, new_run, place_tree, point_latest


@pytest.fixture(params=["EPERM", "ENOTSUP", "ENOSYS", "EACCES"])
def linkless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call here makes a link; folders cannot be synced."""
    monkeypatch.setenv("LINKLESS", request.param)
    for name in ("link", "symlink", "fsync"):
        monkeypatch.setattr(os, name, getattr(os, name))  # put back afterwards
    program = Path(__file__).parents[2] / "fakes" / "linkless" / "sitecustomize.py"
    exec(compile(program.read_text(), str(program), "exec"), {})


@pytest.fixture(scope="module")
def vfat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real file system without links."""
    if os.getuid() != 0 or shutil.which("mkfs.vfat") is None:
        pytest.skip("needs root and mkfs.vfat, to mount a real vfat")
    place = tmp_path_factory.mktemp("vfat")
    image, mounted = place / "image", place / "mounted"
    with image.open("wb") as stream:
        stream.truncate(64 << 20)
    mounted.mkdir()
    subprocess.run(["mkfs.vfat", str(image)], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"vfat cannot be mounted here: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def everything(folder: Path) -> None:
    """Creates, races, saves, points and links in `folder`."""
    results: list[bool] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        barrier.wait()
        results.append(storage.create(folder / "manifest", str(number).encode() * 1000))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]
    assert len(set((folder / "manifest").read_bytes().decode())) == 1
    storage.write_bytes(folder / "file", b"new")
    with storage.atomic_folder(folder / "out", "x") as made:
        (made / "x").write_text("x")
    assert sorted(path.name for path in folder.iterdir()) == ["file", "manifest", "out"]
    store = CheckpointStore(str(folder / "work"))
    for step in range(3):
        assert store.save({"model": {"w": torch.full((2,), float(step))}}, {}, {"step": step}) == step
    loaded = store.load()
    assert loaded is not None
    assert loaded.meta == {"step": 2}
    place_tree(folder / "out", folder / "copy", folder)
    assert (folder / "copy" / "x").read_text() == "x"
    for _ in range(2):
        run = new_run(folder / "runs", "images", "digits", ["train"], {})
        run.begin("train")
        assert find_run(folder / "runs", "latest").id == run.id


@pytest.mark.usefixtures("linkless")
def test_everything_is_kept_on_a_drive_without_links(tmp_path: Path) -> None:
    everything(tmp_path)
    assert not (tmp_path / "runs" / "latest").is_symlink()


def test_everything_is_kept_on_vfat(vfat: Path) -> None:
    everything(vfat)


def test_a_folder_that_comes_back_to_a_disk_gets_its_link_again(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run = new_run(root, "images", "digits", ["train"], {})
    run.begin("train")
    (root / "latest").unlink()
    (root / "latest").write_text("images-of-another-drive\n")
    with pytest.raises(UserError, match="images-of-another-drive"):
        find_run(root, "latest")
    point_latest(root, run.folder)
    assert (root / "latest").is_symlink()
    assert find_run(root, "latest").id == run.id


def test_without_links_what_cannot_be_written_leaves_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(drives, "fill", full)
    with pytest.raises(OSError, match="No space left"):
        drives.create_exclusively(tmp_path / "name", b"x")
    assert not (tmp_path / "name").exists()


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EBUSY, errno.EINVAL, errno.ENODEV, errno.ENOTCONN])
def test_what_a_drive_refuses_is_one_line_that_names_the_path(code: int, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error, as_storage_error(tmp_path / "x", "written"):
        raise OSError(code, os.strerror(code))
    assert str(error.value) == f"{tmp_path / 'x'}: cannot be written: {os.strerror(code)}"


def test_around_a_step_every_error_that_names_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone: cannot be used: No such file or directory$"), every_refusal():
        (tmp_path / "gone").read_text()
    with pytest.raises(ConnectionResetError), every_refusal():
        raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/sys takes no folders from anyone, root included")
@pytest.mark.parametrize("command", [["run", "digits"], ["gallery"], ["runs"]], ids=lambda c: c[0])
def test_a_folder_of_runs_that_refuses_is_one_line(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "textdiffusion.yaml").write_text(
        "runs: /sys/runs\nregistry: /sys/registry\nimage: textdiffusion:fixed\n"
    )
    root = str(Path(__file__).parents[3])
    called = subprocess.run(
        [sys.executable, "-m", "textdiffusion.cli.app", *command],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True,
    )  # fmt: skip
    if command == ["runs"]:  # there are none
        assert called.returncode == 0, called.stderr
        return
    assert (called.returncode, called.stderr.count("\n")) == (2, 1), called.stderr
    assert "/sys/" in called.stderr
