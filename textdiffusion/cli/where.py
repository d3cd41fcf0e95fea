"""Where a run is: on this machine, or on the service that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.storage import scratches

if TYPE_CHECKING:
    from pipelines.service import Service


def service_of(settings: Any, name: str = "") -> Service:
    """The service that runs pipelines: the one called `name`, that of the setting `service`, or the only one that is
    configured.

    Raises:
        UserError: both are configured, and nothing says which.
    """
    chosen = name or settings.service
    if not chosen and settings.project and settings.kubeflow_host:
        raise UserError("service is not set, and both project and kubeflow_host are: write `service: vertex` or"
                        " `service: kubeflow` into textdiffusion.yaml, or set TEXTDIFFUSION_SERVICE")  # fmt: skip
    if chosen == "kubeflow" or (not chosen and settings.kubeflow_host):
        from pipelines.kubeflow.service import KubeflowService

        return KubeflowService(settings)
    from pipelines.vertex.service import VertexService

    return VertexService(settings)


def configured(settings: Any) -> Service | None:
    """The service, if the settings say where it is; None if they name none."""
    kubeflow = settings.kubeflow_host and settings.service != "vertex"
    return service_of(settings) if kubeflow or _in_google(settings) else None


def cloud(settings: Any) -> Any | None:
    """Google Cloud's services of the project that the settings name; None if they name none, or another service."""
    if settings.service == "kubeflow" or not _in_google(settings):
        return None
    from pipelines.vertex.client import Project, Vertex

    return Vertex(Project.of(settings))


def find_anywhere(name: str) -> Any:
    """A run here, or one elsewhere as a folder with run.json and metrics.json.

    Raises:
        UserError: neither here nor there.
    """
    from factory.run_folder import find_run
    from pipelines.settings import load_settings

    settings = load_settings()
    try:
        return find_run(Path(settings.runs).absolute(), name)
    except UserError as here:
        service = configured(settings)
        if service is None or "/" in name or name == "latest":
            raise
        try:
            return service.peek(name, scratches.keep("peek")[0])
        except UserError as there:
            raise UserError(f"{here}; {there}") from None


def _in_google(settings: Any) -> bool:
    return bool(settings.project and settings.region and settings.bucket)
