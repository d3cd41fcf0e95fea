"""Where a run is: on this machine, or on Vertex AI if the settings name a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import UserError
from core.storage import scratches


def cloud(settings: Any) -> Any | None:
    """The services of the project that the settings name; None if they name none."""
    if not (settings.project and settings.region and settings.bucket):
        return None
    from pipelines.vertex.client import Project, Vertex

    return Vertex(Project.of(settings))


def find_anywhere(name: str) -> Any:
    """A run here, or one in the cloud as a folder with run.json and metrics.json.

    Raises:
        UserError: neither here nor there.
    """
    from factory.run_folder import find_run
    from pipelines.settings import load_settings

    settings = load_settings()
    try:
        return find_run(Path(settings.runs).absolute(), name)
    except UserError as here:
        vertex = cloud(settings)
        if vertex is None or "/" in name or name == "latest":
            raise
        from pipelines.vertex.runs import peek

        try:
            return peek(vertex, name, scratches.keep("peek")[0])
        except UserError as there:
            raise UserError(f"{here}; {there}") from None
