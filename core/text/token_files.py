"""Token ids on disk: .npy files of the smallest type that holds them, mapped into memory and never read as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import UserError

BLOCK = 1 << 22  # ids looked at at once


def token_type(vocabulary: int) -> np.dtype:
    """uint16 for up to 65,536 tokens, int32 for more."""
    return np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.int32)


def write(path: Path, blocks: Iterable[NDArray[np.int32]], vocabulary: int) -> tuple[int, str]:
    """Writes ids below `vocabulary` that come block by block; their number, and the SHA-256 of their bytes."""
    kind, count, digest = token_type(vocabulary), 0, hashlib.sha256()
    with path.open("wb") as sink:
        _write_header(sink, kind, 0)
        begin = sink.tell()
        for block in blocks:
            data = block.astype(kind).tobytes()
            digest.update(data)
            sink.write(data)
            count += len(block)
        sink.seek(0)
        _write_header(sink, kind, count)  # of the same length: numpy leaves room for a longer shape
        assert sink.tell() == begin
    return count, digest.hexdigest()


def _write_header(sink: object, kind: np.dtype, count: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(sink, header)  # type: ignore[arg-type]


def opened(path: Path, vocabulary: int, sha256: str | None) -> Tensor:
    """The ids [N] of a file, in its own type (uint16; int32 or int64 of earlier versions), mapped into memory.

    Raises:
        UserError: it cannot be read, is another one than `sha256` says, or has ids outside the vocabulary.
    """
    try:
        ids = np.load(path, mmap_mode="c", allow_pickle=False)  # torch takes no read-only array
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if ids.ndim != 1 or ids.dtype not in (np.uint16, np.int32, np.int64):
        raise UserError(f"{path}: token ids outside the vocabulary of {vocabulary}")
    digest, inside = hashlib.sha256(), True
    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK]
        digest.update(block)
        inside &= bool(0 <= block.min() <= block.max() < vocabulary)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise UserError(f"{path}: content does not match tokens_sha256 in dataset.json")
    if not inside:
        raise UserError(f"{path}: token ids outside the vocabulary of {vocabulary}")
    return torch.from_numpy(ids)


def counts(tokens: Tensor, vocabulary: int) -> Tensor:
    """How often each id is among `tokens` [N]: int64 [V]."""
    total = torch.zeros(vocabulary, dtype=torch.int64)
    for block in tokens.split(BLOCK):
        total += torch.bincount(block.long(), minlength=vocabulary)
    return total
