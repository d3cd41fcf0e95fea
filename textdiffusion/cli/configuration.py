"""init and schema: configurations to begin from, and what an editor needs to help with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.printable import say
from textdiffusion.cli.output import complete_jobs, examples, print_json


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command(
        "init",
        epilog=examples("init", "init my-digits", "init my-text --like pydoc"),
    )(init)
    app.command("schema", epilog=examples("schema job", "schema settings --out settings.schema.json"))(schema)


def init(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of a new job; left out: write textdiffusion.yaml.")
    ] = None,
    like: Annotated[
        str, typer.Option(metavar="JOB", help="The job to begin from.", autocompletion=complete_jobs)
    ] = "mnist-small",
) -> None:
    """Write a configuration in which every setting says what it is: textdiffusion.yaml, or a job of your own."""
    from core import storage
    from core.config import read_yaml
    from core.errors import UserError
    from core.names import inside
    from factory.job import parse_job
    from pipelines import schema as schemas
    from pipelines.jobs import job_path
    from pipelines.settings import FILE, Settings

    folder = Path(schemas.SCHEMA_FOLDER)
    if name is None:
        out, kind = Path(FILE), "settings"
        schema_of, values, chosen = schemas.settings_schema(), Settings().model_dump(mode="json"), {}
        head = "Settings of this machine and project. Remove the # before what you set; the rest keeps its default."
    else:
        out, kind = Path(f"{name}.yaml"), "job"
        given = read_yaml(job_path(like))
        job, chosen = parse_job(given, like), {**given, "job": name}
        schema_of, values = type(job).model_json_schema(), {**job.model_dump(mode="json"), "job": name}
        head = f"A job like {like}. Remove the # before what you change; the rest keeps the default that is shown."
        parse_job(values, f"init {name}")  # a bad name is refused before anything is written
    schema_path = inside(folder, f"{kind}.schema.json")
    text = schemas.commented(schema_of, values, chosen, head, schema_path.as_posix())
    if not storage.create(out, text.encode()):
        raise UserError(f"{out}: is there already; nothing was written")
    for each, make in schemas.SCHEMAS.items():
        storage.write_json(inside(folder, f"{each}.schema.json"), make())
    say(out)
    if name is not None:
        say(f"run it: textdiffusion run {out}")


def schema(
    of: Annotated[
        Literal["job", "settings"], typer.Argument(metavar="job|settings", help="What the schema describes.")
    ] = "job",
    out: Annotated[Path | None, typer.Option(help="File to write; left out: print it.")] = None,
) -> None:
    """The JSON schema of a job's YAML or of textdiffusion.yaml, for editors and other programs."""
    from core import storage
    from pipelines.schema import SCHEMAS

    found = SCHEMAS[of]()
    if out is None:
        print_json(found)
        return
    storage.write_json(out, found)
    say(out, to=sys.stderr)
