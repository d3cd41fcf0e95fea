"""Local paths and `gs://` URIs through one fsspec interface; what is published is whole or absent.

Rules: a local file is written under a temporary name, fsynced and renamed; a remote object appears when its upload
ends. A set of files becomes visible by the manifest that is written last with `create`, which only one writer wins.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from core.errors import UserError

CHUNK = 1 << 20  # bytes


def is_remote(uri: str | Path) -> bool:
    """True for `gs://` and other URIs with a scheme, False for local paths."""
    return "://" in str(uri)


def join(uri: str | Path, *parts: str) -> str:
    """`uri` with `parts` below it."""
    return "/".join([str(uri).rstrip("/"), *parts])


def _filesystem(uri: str | Path) -> tuple[Any, str]:
    # gcsfs probes for hierarchical namespaces over gRPC at its first write; against an emulator that hangs.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(str(uri))
    except (ValueError, ImportError) as error:
        raise UserError(f"{uri}: {error}; allowed: a local path or gs://bucket/path") from None
    fs.invalidate_cache()  # other processes write too
    return fs, path


def exists(uri: str | Path) -> bool:
    """Whether a file or folder is there."""
    if not is_remote(uri):
        return Path(uri).exists()
    fs, path = _filesystem(uri)
    return bool(fs.exists(path))


def size(uri: str | Path) -> int:
    """The length of a file in bytes.

    Raises:
        UserError: there is no such file.
    """
    try:
        if not is_remote(uri):
            return Path(uri).stat().st_size
        fs, path = _filesystem(uri)
        return int(fs.size(path))
    except OSError as error:
        raise UserError(f"{uri}: cannot be read: {error.strerror or type(error).__name__}") from None


def open_read(uri: str | Path) -> IO[bytes]:
    """A binary reader.

    Raises:
        UserError: there is no such file, or it may not be read.
    """
    try:
        if not is_remote(uri):
            return Path(uri).open("rb")
        fs, path = _filesystem(uri)
        return cast(IO[bytes], fs.open(path, "rb"))
    except OSError as error:
        raise UserError(f"{uri}: cannot be read: {error.strerror or type(error).__name__}") from None


def read_bytes(uri: str | Path, *, limit: int | None = None) -> bytes:
    """The whole content; a UserError if it is longer than `limit` bytes."""
    with open_read(uri) as stream:
        data = stream.read() if limit is None else stream.read(limit + 1)
    if limit is not None and len(data) > limit:
        raise UserError(f"{uri}: larger than {limit} bytes")
    return data


def read_json(uri: str | Path, *, limit: int = 64 * CHUNK) -> Any:
    """The JSON value in a file."""
    try:
        return json.loads(read_bytes(uri, limit=limit))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{uri}: not valid JSON: {error}") from None


def write_bytes(uri: str | Path, data: bytes) -> None:
    """Writes a file atomically, replacing what was there; makes its folder."""
    if is_remote(uri):
        fs, path = _filesystem(uri)
        fs.pipe_file(path, data)
        return
    target = Path(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        _write_and_sync(temporary, data)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def write_json(uri: str | Path, value: object) -> None:
    """Writes indented JSON atomically."""
    write_bytes(uri, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def create(uri: str | Path, data: bytes) -> bool:
    """Writes a file only if none of that name exists; of many writers exactly one gets True."""
    if is_remote(uri):
        fs, path = _filesystem(uri)
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True
    target = Path(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        _write_and_sync(temporary, data)
        os.link(temporary, target)  # fails if the name is taken, and never shows a half-written file
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    return True


def _write_and_sync(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Makes a rename in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well, and vanishes when it does not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
        if out.exists():  # a retried step finds what its killed predecessor left
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        temporary.replace(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def list_files(uri: str | Path) -> list[str]:
    """Names of all files below a folder, relative to it, sorted; empty if there is no such folder."""
    if not is_remote(uri):
        root = Path(uri)
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    fs, root_path = _filesystem(uri)
    prefix = root_path.rstrip("/") + "/"
    try:
        return sorted(name[len(prefix) :] for name in fs.find(root_path) if name.startswith(prefix))
    except FileNotFoundError:
        return []


def remove(uri: str | Path) -> None:
    """Removes a file or a folder with all below it; nothing happens if it is not there."""
    if not is_remote(uri):
        path = Path(uri)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return
    fs, remote = _filesystem(uri)
    try:
        fs.rm(remote, recursive=True)
    except FileNotFoundError:
        pass


def copy_tree(source: str | Path, target: str | Path) -> None:
    """Copies all files below `source` to below `target`; either side may be remote. Each file arrives atomically."""
    names = list_files(source)
    if not names:
        raise UserError(f"{source}: no files there")
    for name in names:
        if ".." in Path(name).parts:
            raise UserError(f"{source}: refuses to copy a file named {name!r}")
        if is_remote(target):
            with open_read(join(source, name)) as stream:
                fs, path = _filesystem(join(target, name))
                with fs.open(path, "wb") as sink:
                    shutil.copyfileobj(stream, sink, CHUNK)
        else:
            _copy_to_local(join(source, name), Path(target) / name)


def _copy_to_local(source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open_read(source) as stream, temporary.open("wb") as sink:
            shutil.copyfileobj(stream, sink, CHUNK)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(uri: str | Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with open_read(uri) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
