"""Models by name: of the registry, of a run, or in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from core.images.image_diffusion import ImageDiffusion
from core.processes.world import own_device
from core.storage import scratches
from core.text.text_diffusion import TextDiffusion
from factory.finding import find_model
from pipelines.settings import load_settings


def load(
    name: str | os.PathLike[str], *, registry: str | None = None, runs: str | Path | None = None
) -> ImageDiffusion | TextDiffusion:
    """A trained model, verified by its hashes, on the GPU if there is one.

    From the registry and from a run it samples as it did when it was measured, unless told otherwise.

    Args:
        name: a registered MODEL or MODEL@VERSION, a run's id or `latest`, or the path or gs:// URI of a model folder.
        registry: folder or gs:// prefix of the registry; left out: as textdiffusion.yaml says, else `registry`.
        runs: folder of runs; left out: as textdiffusion.yaml says, else `runs`.

    Raises:
        UserError: there is no such model, or it is damaged.
    """
    given = str(name.absolute()) if isinstance(name, Path) else os.fspath(name)
    settings = load_settings({"registry": registry, "runs": None if runs is None else str(runs)})
    with scratches.temporary_folder("load") as scratch:
        source = find_model(given, settings.registry, Path(settings.runs).absolute(), scratch)
        kind = ImageDiffusion if source.modality == "images" else TextDiffusion
        model: ImageDiffusion | TextDiffusion = kind.load(source.parts["model"], own_device())
    model.manner = source.manner
    return model
