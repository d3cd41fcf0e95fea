"""track: runs told to MLflow and Weights & Biases."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from core.printable import say
from textdiffusion.cli.output import Json, complete_runs, examples, print_json


class Tracker(StrEnum):
    """Who can be told."""

    MLFLOW = "mlflow"
    WANDB = "wandb"


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("track", epilog=examples("track latest --to mlflow", "track RUN RUN --to wandb --json"))(track)


def track(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Finished runs on this machine.", autocompletion=complete_runs)
    ],
    to: Annotated[Tracker, typer.Option("--to", help="The tracker; its own variables say where it is.")],
    as_json: Json = False,
) -> None:
    """Tell a tracker of runs: settings, curves, metrics with floors, samples, decisions; again, without doubles."""
    from factory.run_folder import find_run
    from local.tracking import tell
    from pipelines.settings import load_settings

    settings = load_settings()
    chosen = [find_run(Path(settings.runs).absolute(), name) for name in runs]  # all, before one is told of
    places = {run.id: tell(run, to.value, settings.registry) for run in chosen}
    if as_json:
        print_json(places)
        return
    for run, place in places.items():
        say(f"{run}: {place}")
