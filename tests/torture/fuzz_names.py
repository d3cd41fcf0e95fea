"""Names and places that somebody else chose: nothing is written or read outside, and nobody is asked over a network."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from unittest import mock

from hypothesis import strategies as st

from tests.torture.trial import LostError, require

CONTENT = b"from outside"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
READERS = ("registry", "previews", "record", "shards", "objects")
_ALPHABET = "./\\aC:\0\n~\u2028\ud800"


def names(folder: Path) -> st.SearchStrategy[tuple[str, str]]:
    """A reader of names, and a name for it."""
    lead_out = [
        f"{up}escaped" for up in ("../", "../../", "a/../../", f"{folder}/", f"/{folder}/", "..\\", "C:/", "./")
    ]
    name = st.one_of(
        st.sampled_from([*lead_out, "..", ".", "", "/", "a\0b", "link/escaped"]),
        st.text(_ALPHABET, max_size=8),
        st.text(),
    )
    return st.tuples(st.sampled_from(READERS), name)


def feed_name(value: tuple[str, str], folder: Path) -> None:
    """Lets one reader use the name; whatever it does, beside the folder `in` nothing appears and nothing is read."""
    from core import storage
    from core.errors import UserError

    reader, name = value
    for place in ("in", "elsewhere", "record/steps", "registry/m/versions/00001/model"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    storage.write_bytes(folder / "escaped", CONTENT)
    if not (folder / "in" / "link").is_symlink():
        (folder / "in" / "link").symlink_to(folder / "elsewhere")
    before = _tree(folder)
    try:
        _use(reader, name, folder)
    except UserError:
        pass
    require(_tree(folder) == before, f"{reader} wrote outside for {name!r}")


def _tree(folder: Path) -> list[str]:
    mine = ("in", "record", "registry", "shards")
    return sorted(str(path) for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in mine)


def _use(reader: str, name: str, folder: Path) -> None:
    from core import storage
    from core.names import inside
    from core.training.log import write_records
    from factory.run_folder import find_run
    from factory.shards import read_manifest
    from local.downloads import fetch

    if reader == "registry":
        facts = {"created": "", "metrics": {}, "evaluation_key": "", "weights_sha256": "", "lineage": {}}
        manifest = {"model": "m", "version": 1, "uri": "", **facts, "files": {name: SHA256}}
        _json(folder / "registry/m/versions/00001/manifest.json", manifest)
        fetch("m@1", folder / "in", folder / "runs", str(folder / "registry"))
    elif reader == "previews":
        write_records([], {f"preview-{name}": CONTENT}, folder / "in")
    elif reader == "record":
        step = {"name": "train", "artifacts": {"model": {"path": name, "uri": "", "metadata": {}}}}
        _json(folder / "record/run.json", {"id": "x", "status": "failed", "job": "x", "steps": [step]})
        path = find_run(folder / "runs", str(folder / "record")).artifacts()["model"]["path"]
        below = path is None or path.resolve().is_relative_to((folder / "record").resolve())
        require(below, f"an artifact is taken from {path}")
    elif reader == "shards":
        _json(folder / "shards/manifest.json", {"shards": [{"file": name, "sha256": SHA256}]})
        read_manifest(str(folder / "shards"))
        raise LostError(f"a shard is taken from {name!r}")  # there is none in the folder
    else:
        uri = inside("gs://bucket/m", name)
        require(".." not in uri.split("/") and "//" not in uri[5:], f"an object is called {uri!r}")
        storage.write_bytes(inside(folder / "in", name), CONTENT)


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def places(folder: Path) -> st.SearchStrategy[str]:
    """URIs of every scheme that fsspec knows, and of more, alone and chained, but for those that are supported."""
    from fsspec.registry import known_implementations

    from core.schemes import SCHEMES

    scheme = st.one_of(st.sampled_from(sorted(known_implementations)), st.text("abcGS:+.-/ \0", max_size=6))
    rest = st.sampled_from(["127.0.0.1:9/x", "/etc/passwd", "host/a", "", "x", "\0", "[::1]/x"])
    alone = st.builds(lambda scheme, rest: f"{scheme}://{rest}", scheme, rest)
    chained = st.builds(lambda scheme, inner: f"{scheme}::{inner}", scheme, st.one_of(alone, st.just("gs://bucket/x")))
    return st.one_of(alone.filter(lambda uri: uri.partition("://")[0] not in SCHEMES), chained)


def feed_place(uri: str, folder: Path) -> None:
    """Reads, lists, writes and configures a place: each is refused, and no connection is tried."""
    from core import storage
    from core.config import validate
    from core.errors import UserError
    from core.images.config import ImageData

    def connect(*_: object) -> None:
        raise LostError(f"{uri!r} was asked over the network")

    refused = 0
    attempts = (
        lambda: storage.read_bytes(uri),
        lambda: storage.list_files(uri),
        lambda: storage.write_bytes(uri, b""),
        lambda: validate(ImageData, {"source": "npz", "data_dir": uri}, "data"),
    )
    with mock.patch.object(socket.socket, "connect", connect), mock.patch.object(socket, "getaddrinfo", connect):
        for attempt in attempts:
            try:
                attempt()
            except UserError:
                refused += 1
    require(refused == len(attempts), f"{uri!r} was taken by {len(attempts) - refused} of {len(attempts)}")
