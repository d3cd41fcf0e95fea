"""What a repository of the Hugging Face Hub holds beside the files of `folder.py`.

manifest.json, model/...   the model as the registry keeps it, by which `hf://USER/REPO` is read and verified
sample.py or write.py      the script of the documentation, which needs torch and safetensors alone
README.md, samples.png     the model card (`model_card.py`), and samples of which none was chosen
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.names import inside
from core.records import ModelFacts, read
from core.storage import integrity
from factory import hub
from factory.finding import FoundModel
from factory.run_folder import Run, find_run
from factory.versions import MANIFEST, Version
from serving.export import model_card

CARD, SAMPLES = "README.md", "samples.png"
STANDALONE = Path(__file__).parent / "standalone"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
KEPT = {"run", "data_hash", "code_version", "seed", "examples_seen", "effective_batch_size", "device", "config"}
KEPT |= {"sample"}
"""Lineage that is published. Addresses of buckets, registries and folders stay at home."""


@dataclass(frozen=True)
class Wishes:
    """What the one who publishes says: the repository, and the licence of the weights."""

    repository: str = "USER/REPO"
    licence: str = ""

    def __post_init__(self) -> None:
        hub.repository_of(self.repository)
        if self.licence and not _LICENCE.fullmatch(self.licence):
            raise UserError(f"--licence: found {self.licence!r}; expected the Hub's name, such as mit or cc-by-4.0")


def add(folder: Path, found: FoundModel, model: str, runs: Path | None, wishes: Wishes) -> None:
    """Writes all of it into `folder`, which holds the files of `folder.py`.

    Args:
        folder: where to.
        found: the model that `model` means.
        model: how it was named.
        runs: folder of runs, one of which may have trained it.
        wishes: the words of the one who publishes.
    """
    run = _run_of(found, model, runs)
    files = _copy_parts(folder, found)
    version = _version(found, model, run, files)
    integrity.write_json(folder / MANIFEST, version.model_dump())
    images = found.modality == "images"
    script = "sample.py" if images else "write.py"
    storage.write_bytes(inside(folder, script), _script(script).encode())
    from local.generating import generate

    section: dict[str, Any] = {**found.manner, "seed": 0}
    drawn = folder / "model"
    if images:
        section["count"] = model_card.IMAGES
        generate(str(drawn), "", section, out=folder / SAMPLES)
        texts = []
    else:
        texts = generate(str(drawn), "", {**section, "count": model_card.TEXTS})["texts"]
    description = integrity.read_json(drawn / "model.json")
    source = run.facts.get("config", {}).get("data") if run else None
    card = model_card.written(version, description, texts, script, source or {}, wishes.repository, wishes.licence)
    storage.write_bytes(folder / CARD, card.encode())


def _run_of(found: FoundModel, model: str, runs: Path | None) -> Run | None:
    """The run that trained the model, if it is on this machine."""
    name = found.version.lineage.get("run") if found.version else model
    if runs is None or not name:
        return None
    try:
        return find_run(runs, str(name))
    except UserError:
        return None


def _copy_parts(folder: Path, found: FoundModel) -> dict[str, str]:
    """Copies what generating needs of each part; the hash of every file."""
    files = {}
    for part, path in found.parts.items():
        for name in storage.list_files(path):
            if "/" not in name and name.endswith(hub.SUFFIXES):
                target = inside(folder, f"{part}/{name}")
                storage.write_bytes(target, inside(path, name).read_bytes())
                files[f"{part}/{name}"] = storage.sha256(target)
    return files


def _version(found: FoundModel, model: str, run: Run | None, files: Mapping[str, str]) -> Version:
    """The version that is published; number 0 where no registry has given it one."""
    facts = read(ModelFacts, str(inside(found.parts["model"], "model.json")))
    if found.version:
        known = found.version
        lineage = {key: value for key, value in known.lineage.items() if key in KEPT}
        return known.model_copy(update={"uri": "", "files": dict(files), "lineage": lineage})
    description = integrity.read_json(inside(found.parts["model"], "model.json"))
    lineage = {key: description[key] for key in ("seed", "examples_seen", "device") if key in description}
    lineage |= {"data_hash": description.get("data_sha256"), "sample": found.manner}
    name, created = Path(model.rstrip("/")).name, datetime.now(UTC).isoformat(timespec="seconds")
    if run:
        trained = run.artifacts().get("model", {}).get("metadata", {})
        lineage |= {key: value for key, value in trained.items() if key in KEPT} | {"run": run.id}
        name, created = str(run.facts["job"]), str(run.facts.get("created") or created)
    return Version(
        model=name, version=0, uri="", created=created, metrics=run.metrics() if run else {}, evaluation_key="",
        weights_sha256=facts.weights_sha256, lineage=lineage, files=dict(files),
    )  # fmt: skip


def _script(name: str) -> str:
    """The documentation's script for a copy of the repository, from which it is started."""
    text = inside(STANDALONE, f"{name}.txt").read_text("utf-8")
    text = text.replace("digits-folder/", "").replace("text-folder/", "")
    return text.replace("2 if known", "0 if known").replace("of class 2", "of class 0")
