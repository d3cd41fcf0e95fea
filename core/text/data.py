"""Text data: where it comes from, how it is checked and split, and the folder it is kept in.

A data set folder holds {train,validation,test}.txt, the same as token ids in .npy files, tokenizer.json and
dataset.json. The splits are three contiguous blocks of the text, so that no held-out line has its neighbours in the
training text.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core import storage
from core.errors import UserError
from core.names import inside
from core.storage import integrity
from core.text import tokenizer as tokenizers
from core.text.config import TextData
from core.text.tokenizer import Tokenizer

SPLITS = ("train", "validation", "test")
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
MAX_BYTES = 1 << 30
MIN_CHARACTERS = 1000  # less cannot be split into three parts that say anything


@dataclass(frozen=True)
class TextSet:
    """A prepared data set: its texts, token ids and tokenizer."""

    texts: dict[str, str]
    tokens: dict[str, Tensor]  # int64 [N] for each split
    tokenizer: Tokenizer
    metadata: dict[str, Any]

    @property
    def characters_per_token(self) -> float:
        return len(self.texts["train"]) / len(self.tokens["train"])


def read_source(config: TextData) -> tuple[str, str]:
    """The whole text of a source, and its name.

    Raises:
        UserError: it is missing, not UTF-8, or not what its checksum says.
    """
    if config.source == "pydoc":
        return _pydoc(), "Python's pydoc_data.topics"
    if config.data_dir is not None:
        data, where = _read_place(config.data_dir), config.data_dir
        expected = config.sha256
    else:
        where = config.url or SHAKESPEARE_URL
        data = _download(where)
        expected = config.sha256 or (SHAKESPEARE_SHA256 if config.url is None else None)
    if expected is not None and (found := hashlib.sha256(data).hexdigest()) != expected:
        raise UserError(f"{where}: SHA-256 is {found}, expected {expected} (data.sha256)")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n"), where
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}; save it as UTF-8"
        ) from None


def _pydoc() -> str:
    from pydoc_data import topics

    return "\n\n".join(topics.topics[name].strip() for name in sorted(topics.topics)) + "\n"


def _read_place(place: str) -> bytes:
    """One file, or all .txt files below a folder or prefix in the order of their names."""
    if not storage.is_remote(place) and Path(place).is_file():
        return storage.read_bytes(place, limit=MAX_BYTES)
    names = [name for name in storage.list_files(place) if name.endswith(".txt")]
    if names:
        return b"\n".join(storage.read_bytes(inside(place, name, links=True), limit=MAX_BYTES) for name in names)
    if storage.is_remote(place) and storage.exists(place):
        return storage.read_bytes(place, limit=MAX_BYTES)
    raise UserError(f"data.data_dir: {place}: found no text; allowed: a file, or a folder or prefix with .txt files")


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


def split(text: str, validation: float, test: float) -> dict[str, str]:
    """Three contiguous blocks of `text`, cut after line ends where there is one near: nothing lost, nothing twice."""
    first = _line_end(text, round(len(text) * (1 - validation - test)))
    second = max(first, _line_end(text, round(len(text) * (1 - test))))
    return {"train": text[:first], "validation": text[first:second], "test": text[second:]}


def _line_end(text: str, position: int) -> int:
    found = text.find("\n", position, position + 200)
    return position if found < 0 else found + 1


def prepare(config: TextData, out: Path) -> dict[str, Any]:
    """Reads, checks, splits, tokenizes and hashes a text into the folder `out`; returns its metadata."""
    text, source = read_source(config)
    if config.limit is not None:
        text = text[: config.limit]
    if len(text.strip()) < MIN_CHARACTERS:
        raise UserError(f"{source}: found {len(text.strip())} characters of text; at least {MIN_CHARACTERS} are needed")
    texts = split(text, config.validation_fraction, config.test_fraction)
    tokenizer = tokenizers.train_tokenizer(texts["train"], config.tokenizer)
    tokens = {name: _encode(tokenizer, part, f"{source} ({name} split)") for name, part in texts.items()}
    described = json.dumps(tokenizer.to_json(), sort_keys=True)
    metadata: dict[str, Any] = {
        "modality": "text",
        "source": source,
        "counts": {name: len(part) for name, part in texts.items()},
        "tokens": {name: len(ids) for name, ids in tokens.items()},
        "tokenizer": config.tokenizer.kind,
        "vocabulary_size": tokenizer.size,
        "characters_per_token": round(len(texts["train"]) / len(tokens["train"]), 4),
        "split": "contiguous",
        "split_sha256": {name: hashlib.sha256(part.encode()).hexdigest() for name, part in texts.items()},
        "tokenizer_sha256": tokenizers.sha256(tokenizer.to_json()),
        "tokens_sha256": {name: hashlib.sha256(ids.tobytes()).hexdigest() for name, ids in tokens.items()},
        "content_sha256": hashlib.sha256((described + "\0" + "\0".join(texts.values())).encode()).hexdigest(),
    }
    with storage.atomic_folder(out, "dataset.json") as folder:
        for name, part in texts.items():
            storage.write_bytes(inside(folder, f"{name}.txt"), part.encode())
            np.save(inside(folder, f"{name}.npy"), tokens[name])
        storage.write_json(folder / "tokenizer.json", tokenizer.to_json())
        integrity.write_json(folder / "dataset.json", metadata)
    return metadata


def _encode(tokenizer: Tokenizer, text: str, where: str) -> np.ndarray:
    try:
        return np.asarray(tokenizer.encode(text), dtype=np.int32)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def load(folder: Path) -> TextSet:
    """A prepared data set.

    Raises:
        UserError: a file is missing or damaged.
    """
    metadata = integrity.read_json(folder / "dataset.json")
    if metadata.get("modality") != "text":
        raise UserError(f"{folder / 'dataset.json'}: not a data set of text")
    texts, tokens = {}, {}
    tokenizer = tokenizers.load(folder / "tokenizer.json", metadata.get("tokenizer_sha256"))
    for name in SPLITS:
        data = storage.read_bytes(inside(folder, f"{name}.txt"))
        if hashlib.sha256(data).hexdigest() != metadata["split_sha256"][name]:
            raise UserError(f"{folder}/{name}.txt: content does not match the SHA-256 in dataset.json")
        texts[name] = data.decode()
        try:
            stored = np.load(inside(folder, f"{name}.npy"), allow_pickle=False)
            ids = stored.astype(np.int64)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}/{name}.npy: cannot be read: {error}") from None
        expected = metadata.get("tokens_sha256", {}).get(name)
        if expected is not None and hashlib.sha256(stored.tobytes()).hexdigest() != expected:
            raise UserError(f"{folder}/{name}.npy: content does not match tokens_sha256 in dataset.json")
        if ids.ndim != 1 or (len(ids) and not 0 <= ids.min() <= ids.max() < tokenizer.size):
            raise UserError(f"{folder}/{name}.npy: token ids outside the vocabulary of {tokenizer.size}")
        tokens[name] = torch.from_numpy(ids)
    return TextSet(texts, tokens, tokenizer, metadata)


def require_context(tokens: Tensor, context: int, where: str) -> None:
    """A UserError if `tokens` are fewer than one context."""
    if len(tokens) < context:
        raise UserError(f"{where}: found {len(tokens)} tokens, too short for one context of {context} (model.context)")


def windows(tokens: Tensor, starts: Tensor, context: int) -> Tensor:
    """The tokens from each of `starts` [B] on: int64 [B, context]."""
    return tokens[starts[:, None] + torch.arange(context)]


def held_out(tokens: Tensor, context: int, count: int) -> Tensor:
    """Up to `count` windows spread evenly over `tokens`, not overlapping: int64 [B, context]."""
    whole = len(tokens) // context
    picked = torch.linspace(0, whole - 1, min(count, whole)).round().long()
    return windows(tokens, picked * context, context)
