"""Where text comes from: a file, a folder or archive of them, a data set of huggingface.co, or what is built in."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from core import storage
from core.errors import UserError
from core.names import inside
from core.sources.archives import unpacked
from core.sources.huggingface import loaded, the_column
from core.sources.listing import listing
from core.sources.parts import PARTS
from core.sources.summary import Tally
from core.storage.faults import as_storage_error
from core.text.config import TextData
from core.text.long_text import BLOCK, Decoding, NotUTF8Error

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
MAX_DOWNLOAD = 1 << 30  # bytes
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def source_name(config: TextData) -> str:
    """What errors and metadata call the source."""
    if config.source == "pydoc":
        return "Python's pydoc_data.topics"
    if config.data_dir is not None:
        return config.data_dir
    return f"data.dataset {config.dataset}" if config.source == "huggingface" else config.url or SHAKESPEARE_URL


def read_source(config: TextData, tally: Tally | None = None) -> Iterator[str]:
    """The text of a source in pieces that fit into memory. Line ends are LF, byte order marks are gone; `tally` counts
    both.

    Raises:
        UserError: it is missing, not UTF-8, or not what its checksum says, which only the last piece shows.
    """
    tally = tally if tally is not None else Tally()
    if config.source == "pydoc":
        tally.count("read")
        yield _pydoc()
        return
    where, digest = source_name(config), hashlib.sha256()
    with unpacked(config.data_dir, tally) if config.data_dir is not None else nullcontext() as place:
        if config.source == "huggingface":
            yield from _rows(place, config, tally, where)
            return
        for index, (name, stream) in enumerate(_files(place, config, tally)):
            if index:
                digest.update(b"\n")
                yield "\n"
            with stream:
                yield from _decoded(name, stream, tally, digest)
    expected = config.sha256 or (SHAKESPEARE_SHA256 if where == SHAKESPEARE_URL else None)
    if expected is not None and digest.hexdigest() != expected:
        raise UserError(f"{where}: SHA-256 is {digest.hexdigest()}, expected {expected} (data.sha256)")


def _files(place: str | None, config: TextData, tally: Tally) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, content) of each file."""
    if place is None:
        where = config.url or SHAKESPEARE_URL
        yield where, io.BytesIO(_download(where))
        return
    for name in _names(place, config, tally):
        yield name, storage.open_read(name)


def _decoded(name: str, stream: IO[bytes], tally: Tally, digest: Any) -> Iterator[str]:
    """The text of one file, whose bytes `digest` takes in."""
    decoding, begun = Decoding(), False
    while data := _read(name, stream):
        if not begun and data.startswith(UTF_16):
            raise UserError(f"{name}: is UTF-16, as its first bytes say; save it as UTF-8")
        begun = True
        digest.update(data)
        yield _text(name, decoding, data)
    yield _text(name, decoding, b"", end=True)
    tally.count("read")
    tally.count("byte_order_marks", int(decoding.byte_order_mark))
    tally.count("crlf", int(decoding.crlf))


def _read(name: str, stream: IO[bytes]) -> bytes:
    with as_storage_error(name, "read"):
        return stream.read(BLOCK)


def _text(name: str, decoding: Decoding, data: bytes, *, end: bool = False) -> str:
    try:
        return decoding(data, end=end)
    except NotUTF8Error as error:
        raise UserError(f"{name}: not UTF-8: {error}; save it as UTF-8") from None


def _pydoc() -> str:
    from pydoc_data import topics

    return "\n\n".join(topics.topics[name].strip() for name in sorted(topics.topics)) + "\n"


def _names(place: str, config: TextData, tally: Tally) -> list[str]:
    """One file, or all files below a folder or prefix that end with one of data.suffixes."""
    if not storage.is_remote(place) and Path(place).is_file():
        return [place]
    listed = listing(place)
    tally.skip_all(listed.skipped)
    wanted = tuple(suffix.lower() for suffix in config.suffixes)
    names = [name for name in listed.files if name.lower().endswith(wanted)]
    others: dict[str, int] = {}
    for name in sorted(set(listed.files) - set(names)):
        tally.skip(name, f"not {' or '.join(config.suffixes)} (data.suffixes)")
        suffix = Path(name).suffix or "without a suffix"
        others[suffix] = others.get(suffix, 0) + 1
    if names:
        return [inside(place, name, links=True) for name in names]  # which the listing has checked
    if storage.is_remote(place) and not listed.files and storage.exists(place):
        return [place]
    there = "; there are " + ", ".join(f"{count} {suffix}" for suffix, count in list(others.items())[:5])
    raise UserError(
        f"data.data_dir: {place}: found no text; allowed: a file, or a folder or prefix with"
        f" {' or '.join(config.suffixes)} files (data.suffixes){there if others else ''}"
    )


def _rows(place: str | None, config: TextData, tally: Tally, where: str) -> Iterator[str]:
    """Every row's text, with an empty line between them, the training part first."""
    with loaded(place, config, tally) as parts:
        features = parts["train"].features
        strings = [name for name, kind in features.items() if getattr(kind, "dtype", "") in ("string", "large_string")]
        fitting = [name for name in strings if name == "text"] or strings
        column = the_column(where, config.text_column, "text_column", fitting, list(features), "the text")
        between = ""
        for part in (part for part in PARTS if part in parts):
            for row in parts[part].select_columns([column]):
                text = str(row[column] or "")
                if text.strip():
                    yield between + text.removeprefix("\ufeff").replace("\r\n", "\n").strip("\n")
                    between = "\n\n"
            tally.count("read", len(parts[part]))
    yield "\n"


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows no answer that leads to another scheme."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    if not url.startswith("https://"):
        raise UserError(f"data.url: found {url!r}; allowed: an https address, or use data.data_dir for files")


def _download(url: str) -> bytes:
    _require_https(url)
    try:
        with urllib.request.build_opener(_HttpsOnly).open(url, timeout=60) as reply:
            data: bytes = reply.read(MAX_DOWNLOAD + 1)
    except OSError as error:
        raise UserError(f"{url}: download failed ({error}); set data.data_dir to a copy of the file") from None
    if len(data) > MAX_DOWNLOAD:
        raise UserError(f"{url}: larger than {MAX_DOWNLOAD} bytes")
    return data
