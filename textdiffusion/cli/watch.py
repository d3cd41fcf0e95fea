"""watch: a service's latencies, and whether its samples have drifted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from core.printable import say
from textdiffusion.cli.output import Json, answer, examples, print_json

DRIFTED = 3  # the exit code


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(
        "watch",
        epilog=examples(
            "watch served",
            "watch gs://my-bucket/served/mnist-small --json",
            "watch served --out served.html",
            "watch served --retrain 'mnist-small --max-cost 5'",
        ),
    )(watch)


def watch(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="That `serve --watch` writes to; a path or gs:// URI.")
    ],
    run: Annotated[
        str | None, typer.Option("--run", help="That measured the model. Left out: the one the registry names.")
    ] = None,
    retrain: Annotated[
        str | None, typer.Option(metavar="'JOB ...'", help="After a drift: `deploy` or, without a service, `run` this.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a page of it here too; in runs/served/ the gallery links to it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """How long a service's requests took, and whether its samples are still as measured; exit code 3: they are not."""
    from core.errors import UserError
    from factory.watch import look
    from local import gallery
    from pipelines.settings import load_settings

    if out is not None and (out.is_dir() or out.suffix != ".html"):
        raise UserError(f"--out {out}: name a file that ends with .html")
    job = _words(retrain) if retrain is not None else None  # before the time that a drift check takes
    settings = load_settings()
    runs = Path(settings.runs).absolute()
    facts = look(folder, runs, run, out).facts()
    if out is not None and out.absolute().parent == runs / gallery.SERVICES and (runs / gallery.PAGE).is_file():
        gallery.write(runs, settings.registry)
    print_json(facts) if as_json else _say(facts)
    if facts["not_compared"]:
        raise UserError(facts["not_compared"])
    if not facts["drifted"]:
        return
    say(f"drifted: {', '.join(facts['drifted'])}", to=sys.stderr)
    raise typer.Exit(_retrained(job, settings) if job else DRIFTED)


def _say(facts: dict[str, Any]) -> None:
    say(f"{facts['model']} {facts['version']}, {facts['since']} to {facts['until']}: {facts['served']} samples")
    answer(facts["latencies"], ("route", "n", "p50_ms", "p95_ms", "p99_ms"), False, "no requests")
    for route, codes in facts["requests"].items():
        if refused := ", ".join(f"{count} with {code}" for code, count in codes.items() if code >= "400"):
            say(f"{route}: {refused}")
    columns = ("metric", "served", "measured", "floor", "worse_by", "threshold", "n", "drifted")
    answer(facts["compared"], columns, False, "nothing was compared")
    if facts["not_compared"]:
        return
    say(f"{facts['count']} of {facts['kept']} samples kept, beside as many of run {facts['run']}")
    for doubt in sorted({row["doubt"] for row in facts["compared"] if row["doubt"]}):
        say(f"in doubt: {doubt}")


def _words(job: str) -> list[str]:
    """The words of `--retrain`, as a shell has them."""
    import shlex

    from core.errors import UserError

    try:
        words = shlex.split(job)
    except ValueError as error:
        raise UserError(f"--retrain {job}: {error}") from None
    if not words:
        raise UserError("--retrain: found nothing; name a job, such as 'mnist-small'")
    return words


def _retrained(job: list[str], settings: Any) -> int:
    """Trains as a person would by hand; the exit code of that command."""
    import subprocess

    from textdiffusion.cli.where import configured

    command = ["deploy" if configured(settings) else "run", *job]
    say(f"textdiffusion {' '.join(command)}", to=sys.stderr)
    return subprocess.run([sys.executable, "-m", "textdiffusion", *command], check=False).returncode
