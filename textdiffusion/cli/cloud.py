"""gc: what may be removed from the bucket."""

from __future__ import annotations

from typing import Annotated

import typer

from core.printable import say
from textdiffusion.cli.output import Json, answer, examples

COLUMNS = ("run", "pipeline", "created", "files", "megabytes", "kept_because")


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("gc", epilog=examples("gc --keep-days 60", "gc --remove --json"))(gc)


def gc(
    days: Annotated[float, typer.Option("--keep-days", min=0, help="Younger runs stay.")] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run/--remove", help="Only list; --remove does it.")] = True,
    as_json: Json = False,
) -> None:
    """Old runs in the bucket that nothing refers to, and old checkpoints and curves: list them, or remove them."""
    from pipelines.settings import load_settings
    from textdiffusion.cli.where import service_of

    service = service_of(load_settings())
    deletable = service.candidates(days)
    rows = [
        {
            "run": one.run,
            "pipeline": one.pipeline,
            "created": one.created.isoformat(timespec="minutes"),
            "files": one.files,
            "megabytes": round(one.bytes / 1e6, 1),
            "kept_because": one.reason or None,
        }
        for one in deletable
    ]
    answer(rows, COLUMNS, as_json, "no runs in the cloud")
    going = [one for one in deletable if not one.reason]
    if not dry_run:
        for one in going:
            service.remove(one)
    if not as_json:
        total = sum(one.bytes for one in going) / 1e6
        runs = sum(not one.beside for one in going)
        beside = len(going) - runs
        say(f"{'would remove' if dry_run else 'removed'}: {runs} runs, {beside} folders of trainings, {total:.1f} MB")
