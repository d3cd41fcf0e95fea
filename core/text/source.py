"""Where text comes from: a file, a folder or archive of them, a data set of huggingface.co, or what is built in."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.names import inside
from core.sources.archives import unpacked
from core.sources.huggingface import loaded, the_column
from core.sources.listing import listing
from core.sources.parts import PARTS
from core.sources.summary import Tally
from core.text.config import TextData

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
MAX_BYTES = 1 << 30
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def read_source(config: TextData, tally: Tally | None = None) -> tuple[str, str]:
    """The whole text of a source, and its name. Line ends are LF, byte order marks are gone; `tally` counts both.

    Raises:
        UserError: it is missing, not UTF-8, or not what its checksum says.
    """
    tally = tally if tally is not None else Tally()
    if config.source == "pydoc":
        tally.count("read")
        return _pydoc(), "Python's pydoc_data.topics"
    if config.source == "huggingface":
        return _of_huggingface(config, tally)
    if config.data_dir is not None:
        where, expected = config.data_dir, config.sha256
        with unpacked(config.data_dir, tally) as place:
            files = _read_place(place, config, tally)
    else:
        where = config.url or SHAKESPEARE_URL
        files = [(where, _download(where))]
        expected = config.sha256 or (SHAKESPEARE_SHA256 if config.url is None else None)
    found = hashlib.sha256(b"\n".join(content for _, content in files)).hexdigest()
    if expected is not None and found != expected:
        raise UserError(f"{where}: SHA-256 is {found}, expected {expected} (data.sha256)")
    return "\n".join(_decoded(name, content, tally) for name, content in files), where


def _decoded(name: str, content: bytes, tally: Tally) -> str:
    if content.startswith(UTF_16):
        raise UserError(f"{name}: is UTF-16, as its first bytes say; save it as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}: not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}; save it as UTF-8"
        ) from None
    tally.count("read")
    tally.count("byte_order_marks", int(text.startswith("\ufeff")))
    tally.count("crlf", int("\r\n" in text))
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _pydoc() -> str:
    from pydoc_data import topics

    return "\n\n".join(topics.topics[name].strip() for name in sorted(topics.topics)) + "\n"


def _read_place(place: str, config: TextData, tally: Tally) -> list[tuple[str, bytes]]:
    """(name, content) of one file, or of all files below a folder or prefix that end with one of data.suffixes."""
    if not storage.is_remote(place) and Path(place).is_file():
        return [(place, storage.read_bytes(place, limit=MAX_BYTES))]
    found = listing(place)
    tally.skip_all(found.skipped)
    wanted = tuple(suffix.lower() for suffix in config.suffixes)
    names = [name for name in found.files if name.lower().endswith(wanted)]
    others: dict[str, int] = {}
    for name in sorted(set(found.files) - set(names)):
        tally.skip(name, f"not {' or '.join(config.suffixes)} (data.suffixes)")
        suffix = Path(name).suffix or "without a suffix"
        others[suffix] = others.get(suffix, 0) + 1
    if names:
        return [_read(place, name) for name in names]
    if storage.is_remote(place) and not found.files and storage.exists(place):
        return [(place, storage.read_bytes(place, limit=MAX_BYTES))]
    there = "; there are " + ", ".join(f"{count} {suffix}" for suffix, count in list(others.items())[:5])
    raise UserError(
        f"data.data_dir: {place}: found no text; allowed: a file, or a folder or prefix with"
        f" {' or '.join(config.suffixes)} files (data.suffixes){there if others else ''}"
    )


def _read(place: str, name: str) -> tuple[str, bytes]:
    file = inside(place, name, links=True)  # which the listing has checked
    return file, storage.read_bytes(file, limit=MAX_BYTES)


def _of_huggingface(config: TextData, tally: Tally) -> tuple[str, str]:
    """Every row's text, with an empty line between them, the training part first."""
    if config.data_dir is None:
        where = f"data.dataset {config.dataset}"
        return _rows(None, config, tally, where), where
    with unpacked(config.data_dir, tally) as place:
        return _rows(place, config, tally, config.data_dir), config.data_dir


def _rows(place: str | None, config: TextData, tally: Tally, where: str) -> str:
    texts: list[str] = []
    with loaded(place, config, tally) as parts:
        features = parts["train"].features
        strings = [name for name, kind in features.items() if getattr(kind, "dtype", "") in ("string", "large_string")]
        fitting = [name for name in strings if name == "text"] or strings
        column = the_column(where, config.text_column, "text_column", fitting, list(features), "the text")
        size = 0
        for part in (part for part in PARTS if part in parts):
            for row in parts[part].select_columns([column]):
                text = str(row[column] or "")
                size += len(text)
                if size > MAX_BYTES:
                    raise UserError(f"{where}: more than {MAX_BYTES} characters of text; set data.subset")
                if text.strip():
                    texts.append(text.removeprefix("\ufeff").replace("\r\n", "\n").strip("\n"))
            tally.count("read", len(parts[part]))
    return "\n\n".join(texts) + "\n"


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
            data: bytes = reply.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{url}: download failed ({error}); set data.data_dir to a copy of the file") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{url}: larger than {MAX_BYTES} bytes")
    return data
