"""Data in every format that is read."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.torture.material import VALUES, as_json, mutated
from tests.torture.trial import require


def idx_file(data: np.ndarray) -> bytes:
    return struct.pack(f">HBB{data.ndim}i", 0, 8, data.ndim, *data.shape) + data.tobytes()


def idx(folder: Path) -> st.SearchStrategy[Any]:
    images = idx_file((np.arange(20 * 16) % 251).astype(np.uint8).reshape(20, 4, 4))
    labels = idx_file((np.arange(20) % 2).astype(np.uint8))
    packed = [gzip.compress(images, mtime=0), gzip.compress(labels, mtime=0)]
    pair = st.tuples(mutated([images]), mutated([labels]), st.just(""))
    zipped = st.tuples(mutated([packed[0]]), mutated([packed[1]]), st.just(".gz"))
    return st.one_of(pair, zipped)


def feed_idx(files: tuple[bytes, bytes, str], folder: Path) -> None:
    place = fresh(folder)
    images, labels, suffix = files
    (place / f"train-images-idx3-ubyte{suffix}").write_bytes(images)
    (place / f"train-labels-idx1-ubyte{suffix}").write_bytes(labels)
    read_images({"source": "idx", "data_dir": str(place)})


def npz(folder: Path) -> st.SearchStrategy[Any]:
    def packed(**arrays: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()

    images, labels = (np.arange(20 * 16) % 256).reshape(20, 4, 4), np.arange(20) % 2
    originals = [packed(images=images.astype(np.uint8), labels=labels), packed(images=images / 255, labels=labels)]
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", bytes(64 << 20))
        archive.writestr("../../labels.npy", b"x")
    arrays = st.sampled_from(["<f8", "<U3", "|O", "<c16", ">i4", "|b1", "<M8[s]"]).map(
        lambda kind: packed(images=np.zeros((20, 4, 4), kind), labels=labels) if kind != "|O" else originals[0]
    )
    return st.one_of(mutated(originals), arrays, st.just(bomb.getvalue()))


def feed_npz(data: bytes, folder: Path) -> None:
    (folder / "data.npz").write_bytes(data)
    read_images({"source": "npz", "data_dir": str(folder / "data.npz")})


def pictures(folder: Path) -> st.SearchStrategy[Any]:
    from PIL import Image

    originals = []
    for mode, size, kind in (
        ("L", (5, 5), "PNG"),
        ("RGB", (5, 5), "JPEG"),
        ("RGBA", (5, 4), "PNG"),
        ("P", (9, 9), "PNG"),
    ):
        stream = io.BytesIO()
        Image.new(mode, size, 3).save(stream, kind)
        originals.append(stream.getvalue())
    return st.lists(mutated(originals), min_size=1, max_size=3)


def feed_pictures(files: list[bytes], folder: Path) -> None:
    place = fresh(folder)
    for number, data in enumerate(files * 6):
        path = place / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    read_images({"source": "folder", "data_dir": str(place), "resolution": 4})


def read_images(data: dict[str, Any]) -> None:
    from core.config import validate
    from core.images.config import ImageData
    from core.images.conform import conform
    from core.images.sources import open_source

    config = validate(ImageData, data, "data")
    with open_source(config) as source:
        for pool in (source.train, source.validation, source.test):
            if pool is not None:
                count = sum(len(conform(batch, config, source.intake.tally)) for batch in pool.batches())
                require(count == len(pool.labels), f"{count} images for {len(pool.labels)} labels")


def text(folder: Path) -> st.SearchStrategy[Any]:
    sample = "To be, or not to be: that is the question.\n" * 40
    return st.one_of(
        mutated([sample.encode(), (sample + "é€𝄞").encode("utf-16"), b"\xef\xbb\xbf" + sample.encode()]),
        st.text(min_size=1, max_size=50).map(lambda t: (t * 60).encode("utf-8", "surrogatepass")),
    )


def feed_text(data: bytes, folder: Path) -> None:
    from core.text import data as texts
    from tests.core.asked import Steps

    (folder / "input.txt").write_bytes(data)
    section = {"source": "file", "data_dir": str(folder / "input.txt"), "tokenizer": {"kind": "characters"}}
    Steps("text").prepare_data(section, folder / "dataset")
    texts.load(folder / "dataset")


def tokenizers(folder: Path) -> st.SearchStrategy[Any]:
    from core.text.config import TokenizerConfig
    from core.text.tokenizer import train_tokenizer

    text = "the cat sat on the mat, and the dog sat on the cat.\n" * 20
    saved = [
        train_tokenizer(text, TokenizerConfig(kind=kind, vocabulary=260)).to_json() for kind in ("characters", "bpe")
    ]
    return st.one_of(mutated([json.dumps(value).encode() for value in saved]), VALUES.map(as_json))


def feed_tokenizer(data: bytes, folder: Path) -> None:
    from core.text import tokenizer

    (folder / "tokenizer.json").write_bytes(data)
    loaded = tokenizer.load(folder / "tokenizer.json")
    loaded.decode(loaded.encode("the cat"))


def fresh(folder: Path) -> Path:
    place = folder / "input"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place
