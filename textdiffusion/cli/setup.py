"""doctor: what is installed and reachable, and the command that mends what is not."""

from __future__ import annotations

from typing import Annotated

import typer

from textdiffusion.cli.output import Json, answer, examples


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("doctor", epilog=examples("doctor", "doctor --cloud --json", "doctor --inside"))(doctor)


def doctor(
    on_cloud: Annotated[
        bool | None,
        typer.Option("--cloud/--no-cloud", help="Check Vertex AI or Kubeflow too; left out: if one is set."),
    ] = None,
    inside: Annotated[
        bool, typer.Option("--inside", help="Check the image of the steps instead, in a container of it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check what this machine and the project have; exit code 1 if something that a run needs is missing."""
    from local.doctor import checks
    from pipelines.settings import load_settings

    settings = load_settings()
    if inside:
        from local.containers import checks_inside
        from pipelines.compile import image_name

        rows = checks_inside(image_name(settings.image))
    else:
        rows = checks()
    if not inside and (on_cloud or (on_cloud is None and (settings.project or settings.kubeflow_host))):
        from textdiffusion.cli.where import service_of

        rows += service_of(settings).checks()
    answer(rows, ("check", "state", "found") if inside else ("check", "state", "found", "mend"), as_json)
    if any(row["state"] == "missing" for row in rows):
        raise typer.Exit(1)
