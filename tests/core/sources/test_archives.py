"""Archives: their files and nothing else, wherever hostile names would lead and however far they expand."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from core.errors import UserError
from core.sources import archives
from core.sources.archives import unpacked
from core.sources.summary import Tally
from tests.core.images.sources.test_folder import pictures, prepared


def contents(path: Path, tally: Tally | None = None) -> dict[str, bytes]:
    with unpacked(str(path), tally or Tally()) as root:
        return {
            file.relative_to(root).as_posix(): file.read_bytes() for file in Path(root).rglob("*") if file.is_file()
        }


def make(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["in.zip", "in.tar", "in.tar.gz", "in.TGZ", "in.tar.bz2", "in.tar.xz"])
def test_an_archive_is_read_like_the_folder_it_was_made_of(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name.lower(), {"pets/cat/1.png": b"one", "./pets/dog/2.png": b"two"})
    path = path.rename(tmp_path / name)
    assert contents(path) == {"cat/1.png": b"one", "dog/2.png": b"two"}


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_images_in_an_archive_are_the_data_set_of_its_folder(tmp_path: Path, suffix: str) -> None:
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        pictures(tmp_path / "in" / name, 20)
    files = {
        file.relative_to(tmp_path).as_posix(): file.read_bytes() for file in sorted((tmp_path / "in").rglob("*.png"))
    }
    before = prepared(tmp_path)
    packed = make(tmp_path / f"in.{suffix}", {**files, "__MACOSX/in/._cat": b"x"})
    after = prepared(tmp_path, data_dir=str(packed))
    assert after.content_sha256 == before.content_sha256
    assert after.metadata["summary"]["skipped"]["hidden"]["count"] == 1


def test_a_bad_image_is_named_as_it_is_in_the_archive(tmp_path: Path) -> None:
    packed = make(tmp_path / "in.zip", {f"pets/cat/{index}.png": b"no picture" for index in range(1, 20)})
    with pytest.raises(UserError, match=r"in\.zip/cat/1\.png: unreadable image"):
        prepared(tmp_path, data_dir=str(packed))


@pytest.mark.parametrize(
    "name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "C:/out.txt", "a\\..\\out.txt", "a\nb"]
)
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_written_there(
    tmp_path: Path, suffix: str, name: str
) -> None:
    packed = make(tmp_path / f"in.{suffix}", {name: b"x", "b": b"y"})
    with pytest.raises(UserError, match="refuses the name"):
        contents(packed)
    assert list(tmp_path.iterdir()) == [packed]
    assert not Path("/tmp/out.txt").exists()


def test_links_and_devices_are_left_out_and_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("device", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(f"{name}/passwd.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("cat/1.png"))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as packed:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
        packed.writestr("dog/1.png", b"")
    for name, count, left in (("in.tar", 3, "1.png"), ("in.zip", 1, "1.png")):
        tally = Tally()
        assert [Path(file).name for file in contents(tmp_path / name, tally)] == [left]
        assert tally.summary().skipped[archives.NO_FILE].count == count


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_bomb_is_refused_before_the_disk_is_full(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    packed = make(tmp_path / f"in.{suffix}", {f"{index}.txt": bytes(4 << 20) for index in range(3)})
    with pytest.raises(UserError, match="expand more than 200-fold; refused as a decompression bomb"):
        contents(packed)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_cut_archive_is_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    packed = make(tmp_path / f"in.{suffix}", {"a/1.txt": bytes(range(256)) * 400})
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    with pytest.raises(UserError, match="damaged or not an archive"):
        contents(packed)
    packed.write_bytes(b"this is no archive")
    with pytest.raises(UserError, match="damaged or not an archive"):
        contents(packed)


def test_a_name_twice_and_a_missing_archive_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a.txt"))
    with pytest.raises(UserError, match=r"holds 'a\.txt' twice"):
        contents(tmp_path / "in.tar")
    with pytest.raises(UserError, match="no such archive"):
        contents(tmp_path / "absent.zip")
