"""What is published as one folder: on a disk by a rename, on a mounted bucket file by file with its manifest last."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import storage
from core.errors import UserError
from core.storage import drives, files
from core.storage.drives import is_mounted_bucket
from tests.fakes.vertex import gcsfuse


@pytest.fixture(params=["disk", "bucket", "drive that renames no folders"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk, one that has gcsfuse's rules, and one that has them but is not known to."""
    if request.param == "disk":
        yield tmp_path
        return
    with gcsfuse.rules(tmp_path, listed=request.param == "bucket"):
        yield tmp_path


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Path]:
    with gcsfuse.rules(tmp_path):
        yield tmp_path


def publish(out: Path) -> None:
    with storage.atomic_folder(out, "model.json") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_text("w")
        (folder / "model.json").write_text("{}")


def test_a_failed_block_leaves_neither_folder_nor_rubbish(place: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"), storage.atomic_folder(place / "out", "model.json") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError("boom")
    assert list(place.iterdir()) == []


def test_a_folder_appears_with_all_its_files_and_replaces_what_a_kill_left(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "stale").write_text("x")
    publish(place / "out")
    assert storage.list_files(place / "out") == ["deep/weights", "model.json"]
    assert [path.name for path in place.iterdir()] == ["out"]


HOLD = """
import sys
from pathlib import Path
from core import storage
with storage.atomic_folder(Path(sys.argv[1]), "model.json") as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        publish(tmp_path / "out")
        assert (left / "half").is_file()
        process.kill()
    assert (left / "half").is_file()
    publish(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_block_without_the_manifest_is_a_bug_and_replaces_nothing(tmp_path: Path) -> None:
    publish(tmp_path / "out")
    with pytest.raises(ValueError, match=r"model\.json"), storage.atomic_folder(tmp_path / "out", "model.json"):
        pass
    assert storage.list_files(tmp_path / "out") == ["deep/weights", "model.json"]


@pytest.mark.parametrize("before", [False, True], ids=["new", "over an older one"])
def test_a_bucket_that_fails_in_the_middle_holds_no_manifest(
    before: bool, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        publish(bucket / "out")

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_and_sync", full)
    with pytest.raises(UserError, match="No space left"):
        publish(bucket / "out")
    assert storage.list_files(bucket / "out") == ["deep/weights"]
    assert [path.name for path in bucket.iterdir()] == ["out"]


def test_a_file_of_a_bucket_is_written_in_place_and_created_once(bucket: Path) -> None:
    for content in (b"one", b"two"):
        storage.write_bytes(bucket / "file", content)
    assert (bucket / "file").read_bytes() == b"two"
    assert storage.create(bucket / "manifest", b"first") is True
    assert storage.create(bucket / "manifest", b"second") is False
    assert (bucket / "manifest").read_bytes() == b"first"


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
gcsfuse /mnt/my\\040buckets fuse.gcsfuse rw 0 0
/dev/sdb1 /mnt/my\\040buckets/disk ext4 rw 0 0
/dev/sdc1 /media/stick fuseblk rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "mounted"),
    [
        ("/gcs/bucket/images", True),
        ("/mnt/my buckets/a/b", True),
        ("/mnt/my buckets/disk/a", False),
        ("/media/stick/runs", False),
        ("/home/me/runs", False),
    ],
)
def test_a_bucket_is_known_by_what_the_system_says_is_mounted(path: str, mounted: bool, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert is_mounted_bucket(Path(path), tmp_path / "mounts") is mounted
    assert is_mounted_bucket(Path("/home/me"), tmp_path / "absent") is False


def test_an_object_that_another_machine_created_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(stream: object, data: bytes) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(drives, "fill", taken)
    assert drives.create_exclusively(tmp_path / "manifest", b"mine") is False
    assert (tmp_path / "manifest").exists()
