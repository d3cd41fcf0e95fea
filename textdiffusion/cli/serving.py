"""serve: a model in use over HTTP."""

from __future__ import annotations

from functools import wraps
from typing import Any

import typer

from serving.command import serve
from textdiffusion.cli.output import examples


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(
        "serve",
        epilog=examples(
            "serve mnist-small",
            "serve mnist-small@3 --port 9000 --steps 8",
            "serve runs-of-mine/model --host 0.0.0.0",
            "serve pydoc --registry gs://my-bucket/registry",
        ),
    )(_with_settings)


@wraps(serve)
def _with_settings(**options: Any) -> None:
    """The registry and runs that the settings name, unless the command line does."""
    from pipelines.settings import load_settings

    settings = load_settings({"registry": options["registry"], "runs": options["runs"]})
    serve(**{**options, "registry": settings.registry, "runs": settings.runs})
