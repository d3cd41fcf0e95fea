"""batch: many predictions at once on Vertex AI, without an endpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from core.printable import say
from textdiffusion.cli.endpoint import DryRun, HourlyCost, Row, cloud, parsed_parameters, say_estimate
from textdiffusion.cli.output import Json, add_group, answer
from textdiffusion.cli.remote import Interval

Number = Annotated[str, typer.Argument(metavar="NUMBER", help="The job's number.")]
COLUMNS = ("number", "name", "state", "succeeded", "failed", "output", "error")


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    add_group(app, "batch", "Many predictions at once on Vertex AI, without an endpoint.", EXAMPLES)


def create(
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="Left out: the champion.")],
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON lines, each as `POST /generate` takes it; here or gs://.")
    ],
    output: Annotated[
        str, typer.Option("--out", metavar="URI", help="gs:// prefix; left out: gs://BUCKET/batch.")
    ] = "",
    parameters: Annotated[str, typer.Option(metavar="JSON", help="Laid under each line.")] = "{}",
    size: Annotated[int, typer.Option(min=1, max=64, help="Lines of one request; all fail if one is wrong.")] = 8,
    machine: Row = "cpu",
    replicas: Annotated[int, typer.Option(min=1, max=1000, help="Most machines.")] = 1,
    max_cost: HourlyCost = None,
    dry_run: DryRun = False,
    follow: Annotated[bool, typer.Option("--follow", help="Until the end; the exit code is the job's.")] = False,
    interval: Interval = 10.0,
    as_json: Json = False,
) -> None:
    """Predict every line of a file with a registered version; the answers are JSON lines in the bucket."""
    from core import storage
    from core.errors import UserError
    from pipelines.machines import choose, load_machines
    from pipelines.settings import load_settings
    from pipelines.vertex import batches, endpoints

    vertex = cloud()
    row = choose(load_machines(load_settings().machines), machine, "--machine")
    bounds = endpoints.Bounds(row, 1, replicas)
    below = parsed_parameters(parameters)
    target = output or f"gs://{vertex.project.bucket}/batch"
    if not target.startswith("gs://") or (storage.is_remote(source) and not source.startswith("gs://")):
        raise UserError("batch: Vertex AI reads and writes gs:// only")
    content = batches.require_lines(source)
    version, resource = endpoints.registered(vertex, model)
    say_estimate(bounds.cost(), max_cost)
    if dry_run:
        say(f"{version}: can predict {source}", to=sys.stderr)
        return
    made = batches.create(
        vertex, version, resource, batches.uploaded(vertex, source, content), target, bounds,
        size=size, parameters=below,
    )  # fmt: skip
    if follow:
        made = batches.watch(vertex, made.number, _tell, interval)
    answer([vars(made)], COLUMNS, as_json)
    if follow and made.state != "succeeded":
        raise typer.Exit(1)


def list_all(as_json: Json = False) -> None:
    """All batch prediction jobs of the project and region."""
    from pipelines.vertex import batches

    answer([vars(one) for one in batches.listed(cloud())], COLUMNS, as_json, "no batches")


def show(
    number: Number,
    follow: Annotated[bool, typer.Option("--follow", help="Until the end; the exit code is the job's.")] = False,
    interval: Interval = 10.0,
    as_json: Json = False,
) -> None:
    """One job: its state, how many lines were predicted, where they are."""
    from pipelines.vertex import batches

    vertex = cloud()
    one = batches.watch(vertex, number, _tell, interval) if follow else batches.get(vertex, number)
    answer([vars(one)], COLUMNS, as_json)
    if follow and one.state != "succeeded":
        raise typer.Exit(1)


def cancel(number: Number) -> None:
    """End a job; what it has predicted stays."""
    from pipelines.vertex import batches

    batches.cancel(cloud(), number)
    say(f"{number}: is being cancelled")


EXAMPLES: dict[Callable[..., Any], tuple[str, ...]] = {
    create: (
        "batch create mnist-small asks.jsonl --dry-run",
        "batch create mnist-small@3 gs://my-bucket/asks.jsonl --out gs://my-bucket/answers --follow",
    ),
    list_all: ("batch list", "batch list --json"),
    show: ("batch show 2000000000000000001 --follow",),
    cancel: ("batch cancel 2000000000000000001",),
}


def _tell(now: Any) -> None:
    say(f"{now.number}  {now.state}", to=sys.stderr)
