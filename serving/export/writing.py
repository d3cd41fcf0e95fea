"""An export from a model's name to a folder: written, checked, and only then there."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from core import storage
from core.errors import UserError
from core.storage import scratches
from factory.finding import find_model
from serving.export import published
from serving.export import source as sources
from serving.export.published import Wishes

MANIFEST = "export.json"
HUB = "hub"
KINDS = {
    HUB: "serving.export.folder",
    "onnx": "serving.export.onnx_files",
    "torch": "serving.export.torch_program",
    "diffusers": "serving.export.diffusers_folder",
}
NEEDED = ("diffusers", "onnx", "onnxruntime", "onnxscript", "onnx_ir")  # the extra `export`


def export(
    model: str,
    kind: str,
    out: Path,
    registry: str,
    runs: Path | None,
    wishes: Mapping[str, Any],
    publish: Wishes | None = None,
) -> dict[str, Any]:
    """Writes an export of `kind` to the folder `out` and returns what its manifest says.

    `publish`: what the model card of kind `hub` says of repository and licence.

    Raises:
        UserError: there is no such model, `out` holds something else, a package is missing, or the samples of the
            export differ from ours by more than its tolerance; nothing is written then.
    """
    require_export_or_nothing(out)
    with scratches.temporary_folder("export") as scratch:
        found = find_model(model, registry, runs, scratch)
        source = sources.load(found, wishes)
        writer = needing_extra(KINDS[kind])
        with storage.atomic_folder(out, MANIFEST) as folder:
            writer.write(folder, source)
            differences = writer.check(folder, source)
            for one in differences:
                one.require()
            if kind == HUB:
                published.add(folder, found, model, runs, publish or Wishes())
            facts = {
                "kind": kind,
                "model": model,
                "weights_sha256": source.trained.description.get("weights_sha256"),
                "files": dict(sorted(storage.sizes(folder).items())),
                "differences": [{"file": d.what, "largest": d.largest, "allowed": d.allowed} for d in differences],
            }
            storage.write_json(folder / MANIFEST, facts)
    return facts


def needing_extra(module: str) -> ModuleType:
    """A module of ours that imports packages of the extra `export`.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDED:
            raise
        raise UserError(f"{error.name} is not installed: pip install 'textdiffusion[export]'") from None


def require_export_or_nothing(out: Path) -> None:
    """Raises UserError if `out` holds something else than an export, which would be lost."""
    if not storage.may_become(out, MANIFEST):
        raise UserError(f"{out}: holds something that is no export; choose another folder")
