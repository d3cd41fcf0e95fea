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
        epilog=examples("init", "init my-digits", "init my-text --like pydoc", "init pets --data pets/"),
    )(init)
    app.command("schema", epilog=examples("schema job", "schema settings --out settings.schema.json"))(schema)


def init(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of a new job; left out: write textdiffusion.yaml.")
    ] = None,
    like: Annotated[str, typer.Option(metavar="JOB", help="The job to begin from.", autocompletion=complete_jobs)] = "",
    data: Annotated[
        str,
        typer.Option(metavar="PLACE", help="Your images or text, which the job is made for."),
    ] = "",
) -> None:
    """Write a configuration in which every setting says what it is: textdiffusion.yaml, or a job of your own."""
    from core import storage
    from core.config import read_yaml
    from core.errors import UserError
    from core.names import inside
    from factory.job import parse_job
    from factory.looking import require_suitable_data
    from pipelines import schema as schemas
    from pipelines.jobs import job_path
    from pipelines.settings import FILE, Settings

    folder, notes = Path(schemas.SCHEMA_FOLDER), list[str]()
    if data and (name is None or like):
        raise UserError("--data goes with NAME and without --like: textdiffusion init my-job --data my-images/")
    if name is None:
        out, kind = Path(FILE), "settings"
        schema_of, values, chosen = schemas.settings_schema(), Settings().model_dump(mode="json"), {}
        head = "Settings of this machine and project. Remove the # before what you set; the rest keeps its default."
    else:
        out, kind = Path(f"{name}.yaml"), "job"
        if out.exists():
            raise UserError(f"{out}: is there already; nothing was written")
        if data:
            from factory.own_job import own_job

            given, notes = own_job(name, data)
        else:
            like = like or "mnist-small"
            given = read_yaml(job_path(like))
        job, chosen = parse_job(given, like or f"init {name}"), {**given, "job": name}
        if data:
            require_suitable_data(job)
        schema_of, values = type(job).model_json_schema(), {**job.model_dump(mode="json"), "job": name}
        head = f"A job {f'for {data}' if data else f'like {like}'}."
        head += " Remove the # before what you change; the rest keeps the default that is shown."
        parse_job(values, f"init {name}")  # a bad name is refused before anything is written
    schema_path = inside(folder, f"{kind}.schema.json")
    text = schemas.commented(schema_of, values, chosen, head, schema_path.as_posix())
    if not storage.create(out, text.encode()):
        raise UserError(f"{out}: is there already; nothing was written")
    for each, make in schemas.SCHEMAS.items():
        storage.write_json(inside(folder, f"{each}.schema.json"), make())
    say(out)
    for note in notes:
        say(note)
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

    answer_schema = SCHEMAS[of]()
    if out is None:
        print_json(answer_schema)
        return
    storage.write_json(out, answer_schema)
    say(out, to=sys.stderr)
