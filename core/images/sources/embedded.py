"""Data sets that are part of the library: one npz each in core/images/embedded/, known by its SHA-256."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.errors import UserError
from core.printable import say

WRITTEN = (1980, 1, 1, 0, 0, 0)  # the date of every member: the file's bytes depend on the arrays alone


def verified(file: Path, sha256: str) -> Path:
    """`file`, if it is the one that belongs to this code.

    Raises:
        UserError: it is not.
    """
    if not file.exists() or storage.sha256(file) != sha256:
        raise UserError(f"{file}: missing or changed since it was made; install textdiffusion again")
    return file


def write(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes the npz, and says its SHA-256."""
    file.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            stream = io.BytesIO()
            np.save(stream, values, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", WRITTEN)
            archive.writestr(member, stream.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    say(f"{file}: {file.stat().st_size:,} bytes, SHA-256 {storage.sha256(file)}")
