"""ONNX Runtime Web for the page: a pinned npm package, fetched by npm once and kept in the user's cache.

npm's own configuration says which registry and proxy are used. What is kept is verified by its hash each time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from core import storage
from core.errors import UserError
from core.names import inside
from core.storage import scratches

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
RELEASE = f"{PACKAGE}-{VERSION}"
TARBALL = f"{RELEASE}.tgz"  # as npm names it
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
MODULE, WASM = FILES
LICENCE = "ONNX Runtime Web, Copyright (c) Microsoft Corporation, MIT licence: https://github.com/microsoft/onnxruntime"
SECONDS = 600  # for 33 MB


def runtime(tarball: Path | None = None) -> dict[str, bytes]:
    """The files of `FILES`: from an npm tarball that is here, else from the cache, else by npm.

    Raises:
        UserError: npm is missing or fails, or a file is not the pinned one.
    """
    if tarball is not None:
        return _unpacked(tarball)
    cache = _cache()
    kept = {name: inside(cache, name) for name in FILES}
    if all(path.is_file() and _is_pinned(name, path.read_bytes()) for name, path in kept.items()):
        return {name: path.read_bytes() for name, path in kept.items()}
    with scratches.temporary_folder("npm") as scratch:
        found = _unpacked(_packed(scratch))
    for name, data in found.items():
        storage.write_bytes(kept[name], data)
    return found


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "textdiffusion" / RELEASE


def _packed(folder: Path) -> Path:
    wanted = f"{PACKAGE}@{VERSION}"
    by_hand = f"or `npm pack {wanted}` elsewhere, and --runtime {TARBALL}"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"npm is not installed, which brings {wanted}: install Node.js, {by_hand}")
    command = [npm, "pack", wanted, "--pack-destination", str(folder), "--silent"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"npm pack {wanted}: nothing after {SECONDS} s; try again, {by_hand}") from None
    packed = folder / TARBALL
    if done.returncode or not packed.is_file():
        last = done.stderr.strip().partition("\n")[0] or "no reason given"
        raise UserError(f"npm pack {wanted}: {last}; mend it, {by_hand}")
    return packed


def _unpacked(tarball: Path) -> dict[str, bytes]:
    found = {}
    try:
        with tarfile.open(tarball) as archive:
            for name in FILES:
                stream = archive.extractfile(f"package/dist/{name}")
                found[name] = stream.read() if stream else b""
    except (KeyError, tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{tarball}: not the npm package {PACKAGE} {VERSION}: {error}") from None
    for name, data in found.items():
        if not _is_pinned(name, data):
            raise UserError(f"{tarball}: {name} is not that of {PACKAGE} {VERSION}: its SHA-256 differs")
    return found


def _is_pinned(name: str, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == FILES[name]
