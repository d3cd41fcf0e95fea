"""Models and checkpoints that somebody else made: sizes, headers, manifests, descriptions."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.torture.material import NUMBERS, VALUES, as_json, mutated
from tests.torture.trial import require


def sizes(folder: Path) -> st.SearchStrategy[Any]:
    """Networks of every size that a configuration can ask for, most of them far beyond any machine."""
    images = st.fixed_dictionaries(
        {
            "network": st.integers(1, 4).flatmap(
                lambda levels: st.fixed_dictionaries(
                    {
                        "channels": st.lists(
                            st.integers(2, 300).map(lambda n: 8 * n), min_size=levels, max_size=levels
                        ),
                        "blocks": st.lists(st.integers(0, 20), min_size=levels, max_size=levels),
                        "embedding": st.integers(0, 5000),
                    }
                )
            )
        }
    )
    text = st.fixed_dictionaries(
        {
            "transformer": st.fixed_dictionaries(
                {
                    "width": st.integers(0, 150).map(lambda n: 64 * n),
                    "depth": st.integers(0, 100),
                    "heads": st.sampled_from([1, 2, 4, 8, 32]),
                }
            )
        }
    )
    return st.one_of(images, text)


def feed_sizes(model: dict[str, Any], folder: Path) -> None:
    from unittest import mock

    from core.config import validate
    from core.images.config import ImageModel
    from core.images.model import ImageShape, build_network
    from core.text.config import TextModel
    from core.text.objective import build
    from core.training import capacity

    with mock.patch.object(capacity, "MAX_PARAMETERS", 2_000_000):  # what fits is built: it may take no long time
        if "network" in model:
            shape = ImageShape(channels=1, height=32, width=32, class_names=("a", "b"))
            build_network(validate(ImageModel, model, "model"), shape)
        else:
            build("diffusion", 300, validate(TextModel, model, "model"))


def safetensors(folder: Path) -> st.SearchStrategy[Any]:
    import torch

    from core.storage.checkpoint import serialize

    original = serialize({"w": torch.arange(12.0).reshape(3, 4), "b": torch.zeros(2, dtype=torch.int64)})

    def headed(header: bytes, length: int) -> bytes:
        return struct.pack("<Q", length) + header + bytes(32)

    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "I64", "F8", "X", 3]),
            "shape": st.lists(NUMBERS, max_size=3),
            "data_offsets": st.lists(NUMBERS, max_size=3),
        }
    )
    header = st.dictionaries(st.text(max_size=4), st.one_of(entry, VALUES), max_size=3).map(as_json)
    length = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([2**32, 2**63, 100_000_001]))
    forged = st.one_of(header.map(lambda h: headed(h, len(h))), st.builds(headed, header, length))
    return st.one_of(mutated([original]), forged)


def feed_safetensors(data: bytes, folder: Path) -> None:
    from core.storage.checkpoint import deserialize

    deserialize(data, "weights.safetensors")


def manifests(folder: Path) -> st.SearchStrategy[Any]:
    import torch

    from core.storage.checkpoint import CheckpointStore

    store = CheckpointStore(str(folder / "work"))
    store.save({"model": {"w": torch.zeros(3)}}, {"log.jsonl": b"{}"}, {"number": 0})
    original = (folder / "work" / "manifest-00000000.json").read_bytes()
    path = st.one_of(
        st.sampled_from(["../x", "/etc/passwd", "data/../../x", "data/", "data/a\0b"]), st.text(max_size=6)
    )
    entry = st.fixed_dictionaries({"path": path, "sha256": st.text(max_size=4), "bytes": NUMBERS})
    files = st.dictionaries(st.text(max_size=5), entry, max_size=2)
    forged = st.builds(signed, files, st.dictionaries(st.text(max_size=4), VALUES, max_size=2))
    return st.one_of(mutated([original]), VALUES.map(as_json), forged)


def signed(files: Any, meta: Any) -> bytes:
    """A manifest by one who knows how it is hashed."""
    from core.storage.integrity import digest

    manifest = {"index": 1, "files": files, "meta": meta}
    try:
        return as_json({**manifest, "sha256": digest(json.loads(as_json(manifest)))})
    except ValueError:
        return b"{}"


def feed_manifest(data: bytes, folder: Path) -> None:
    from core.storage.checkpoint import CheckpointStore

    (folder / "work" / "manifest-00000001.json").write_bytes(data)
    found = CheckpointStore(str(folder / "work")).load()
    require(found is not None, "the whole checkpoint before it was not found")


def descriptions(folder: Path) -> st.SearchStrategy[Any]:
    shape = st.fixed_dictionaries(
        {
            "channels": st.sampled_from([1, 3, 0, 10**9]),
            "height": NUMBERS,
            "width": NUMBERS,
            "class_names": st.lists(st.text(max_size=3), max_size=3),
        }
    )
    images = st.fixed_dictionaries(
        {
            "modality": st.just("images"),
            "data": st.one_of(shape, VALUES),
            "model": sizes(folder),
            "weights_sha256": st.text(max_size=3),
        }
    )
    text = st.fixed_dictionaries(
        {
            "modality": st.just("text"),
            "objective": st.sampled_from(["diffusion", "x", "masked"]),
            "model": st.one_of(sizes(folder), VALUES),
        }
    )
    return st.one_of(images, text, VALUES)


def feed_description(value: Any, folder: Path) -> None:
    from core.errors import UserError
    from core.images.model import load_model as load_images
    from core.storage.integrity import sealed
    from core.text.model import load_model as load_text

    with contextlib.suppress(ValueError):  # by one who knows how it is hashed
        value = sealed(json.loads(as_json(value))) if isinstance(value, dict) else value
    (folder / "model.json").write_bytes(as_json(value))
    (folder / "weights.safetensors").write_bytes(b"")
    for load in (load_images, load_text):
        with contextlib.suppress(UserError):
            load(folder)
