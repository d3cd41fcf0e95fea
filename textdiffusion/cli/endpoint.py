"""endpoint: registered versions in service on Vertex AI, with traffic between them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from core.printable import say
from textdiffusion.cli.output import Json, add_group, answer, print_json

Name = Annotated[str, typer.Argument(metavar="NAME", help="The endpoint's name, or its number.")]
VersionName = Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="What is deployed; its number will do too.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and estimate only.")]
Row = Annotated[str, typer.Option("--machine", metavar="ROW", help="Row of resources.yaml.")]
Least = Annotated[int, typer.Option("--min-replicas", min=1, max=1000, help="Machines that always run.")]
Most = Annotated[int | None, typer.Option("--max-replicas", min=1, max=1000, help="Left out: as --min-replicas.")]
HourlyCost = Annotated[float | None, typer.Option("--max-cost", min=0, metavar="USD", help="Refuse more an hour.")]
COLUMNS = ("endpoint", "version", "traffic", "replicas", "machine", "usd_an_hour", "deployment")


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    add_group(app, "endpoint", "Registered versions in service on Vertex AI.", EXAMPLES)


def create(name: Name, dry_run: DryRun = False) -> None:
    """Make an endpoint. It costs nothing until something is deployed in it."""
    from pipelines.vertex import endpoints

    endpoints.create(cloud(), name, dry_run=dry_run)
    say(f"{name}: {'can be made' if dry_run else 'made'}; deploy with `textdiffusion endpoint deploy {name} MODEL`")


def deploy(
    name: Name,
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="Left out: the champion.")],
    traffic: Annotated[
        int | None, typer.Option(min=0, max=100, help="Percent; left out: all in an empty endpoint, else none.")
    ] = None,
    machine: Row = "cpu",
    least: Least = 1,
    most: Most = None,
    spot: Annotated[bool, typer.Option("--spot", help="On spot machines, which may be taken away.")] = False,
    max_cost: HourlyCost = None,
    if_new: Annotated[bool, typer.Option("--if-new", help="Do nothing if it is in the endpoint already.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put a registered version into an endpoint, wait until it answers, then give it its share of the traffic."""
    from pipelines.machines import choose, load_machines
    from pipelines.settings import load_settings
    from pipelines.vertex import endpoints
    from pipelines.vertex import traffic as moving

    vertex, settings = cloud(), load_settings()
    row = choose(load_machines(settings.machines), machine, "--machine")
    bounds = endpoints.Bounds(row, least, least if most is None else most, spot)
    endpoint = endpoints.find(vertex, name)
    version, resource = endpoints.registered(vertex, model)
    if if_new and any(one.name == version for one in endpoint.deployed):
        say(f"{version}: is in {endpoint.name} already; nothing was changed", to=sys.stderr)
        _show(vertex, name, as_json)
        return
    endpoints.require_new(endpoint, version)
    share = traffic if traffic is not None else (0 if endpoint.split else 100)
    if not endpoint.split and 0 < share < 100:
        raise _wrong(f"--traffic {share}: {endpoint.name} has no other version that answers; allowed: 100, or 0")
    say_estimate(bounds.cost(), max_cost)
    if dry_run:
        say(f"{version}: can be deployed in {endpoint.name}", to=sys.stderr)
        return
    say(f"{version}: is being deployed in {endpoint.name}; the service takes ten minutes or more", to=sys.stderr)
    deployed = endpoints.deploy(vertex, endpoint, version, resource, bounds)
    if share:
        endpoint = endpoints.find(vertex, endpoint.number)
        moving.move(vertex, endpoint, moving.shared(endpoint, {deployed.identity: share}))
    _show(vertex, name, as_json)


def traffic(
    name: Name,
    shares: Annotated[
        list[str], typer.Argument(metavar="MODEL@VERSION=PERCENT...", help="Others share what is left, as before.")
    ],
    as_json: Json = False,
) -> None:
    """Change at once how much of the traffic each version gets."""
    from pipelines.vertex import endpoints
    from pipelines.vertex import traffic as moving

    wanted = {}
    for text in shares:
        version, _, percent = text.rpartition("=")
        if not version or not re.fullmatch("[0-9]{1,3}", percent):
            raise _wrong(f"{text}: expected MODEL@VERSION=PERCENT, for example mnist-small@3=10")
        wanted[version] = int(percent)
    vertex = cloud()
    endpoint = endpoints.find(vertex, name)
    moving.move(vertex, endpoint, moving.shared(endpoint, wanted))
    _show(vertex, name, as_json)


def rollback(name: Name, as_json: Json = False) -> None:
    """Give the traffic back to whom it went before the last change; a second time undoes that."""
    from pipelines.vertex import endpoints
    from pipelines.vertex import traffic as moving

    vertex = cloud()
    endpoint = endpoints.find(vertex, name)
    moving.move(vertex, endpoint, moving.before(endpoint))
    _show(vertex, name, as_json)


def scale(name: Name, version: VersionName, least: Least = 1, most: Most = None, as_json: Json = False) -> None:
    """Change on how many machines a version may run."""
    from pipelines.vertex import endpoints

    vertex = cloud()
    endpoints.scale(vertex, endpoints.find(vertex, name), version, least, least if most is None else most)
    _show(vertex, name, as_json)


def predict(
    name: Name,
    instances: Annotated[list[str], typer.Argument(metavar="JSON...", help="Each as `POST /generate` takes it.")],
    parameters: Annotated[str, typer.Option(metavar="JSON", help="Laid under each.")] = "{}",
) -> None:
    """Ask an endpoint for samples; prints JSON."""
    from core import jsontext
    from pipelines.vertex import endpoints

    asked = [jsontext.parse(text, f"instance {number}") for number, text in enumerate(instances, start=1)]
    below = parsed_parameters(parameters)
    vertex = cloud()
    print_json(endpoints.predict(vertex, endpoints.find(vertex, name), asked, below))


def undeploy(name: Name, version: VersionName) -> None:
    """End a version that has no traffic, or is the only one; what it is asked already is answered."""
    from pipelines.vertex import endpoints

    vertex = cloud()
    endpoints.undeploy(vertex, endpoints.find(vertex, name), version)
    say(f"{version}: no longer in {name}")


def delete(
    name: Name, undeploy_all: Annotated[bool, typer.Option("--undeploy", help="With all that is in it.")] = False
) -> None:
    """Remove an endpoint. The registered versions stay."""
    from pipelines.vertex import endpoints

    vertex = cloud()
    endpoints.delete(vertex, endpoints.find(vertex, name), undeploy_all=undeploy_all)
    say(f"{name}: deleted")


def list_all(as_json: Json = False) -> None:
    """All endpoints of the project and region, what is in them, and what that costs an hour."""
    from pipelines.vertex import endpoints

    vertex = cloud()
    _print(endpoints.listed(vertex), as_json)


EXAMPLES: dict[Callable[..., Any], tuple[str, ...]] = {
    create: ("endpoint create digits",),
    deploy: (
        "endpoint deploy digits mnist-small --max-replicas 3 --dry-run",
        "endpoint deploy digits mnist-small@4 --traffic 10 --machine t4 --max-cost 1",
        "endpoint deploy digits mnist-small --traffic 10 --if-new",
    ),
    traffic: ("endpoint traffic digits mnist-small@4=50", "endpoint traffic digits mnist-small@3=0 mnist-small@4=100"),
    rollback: ("endpoint rollback digits",),
    scale: ("endpoint scale digits mnist-small@4 --min-replicas 2 --max-replicas 8",),
    predict: ('endpoint predict digits \'{"class": "7", "seed": 5}\'',),
    undeploy: ("endpoint undeploy digits mnist-small@3",),
    delete: ("endpoint delete digits --undeploy",),
    list_all: ("endpoint list", "endpoint list --json"),
}


def cloud() -> Any:
    """The services of the project that the settings name."""
    from pipelines.settings import load_settings
    from pipelines.vertex.client import Project, Vertex

    return Vertex(Project.of(load_settings()))


def parsed_parameters(text: str) -> dict[str, Any]:
    """The JSON object of --parameters."""
    from core import jsontext

    value = jsontext.parse(text, "--parameters")
    if not isinstance(value, dict):
        raise _wrong("--parameters: expected a JSON object")
    return value


def _wrong(text: str) -> Exception:
    from core.errors import UserError

    return UserError(text)


def say_estimate(cost: Any, most: float | None) -> None:
    """Says what an hour costs, on stderr; refuses what costs more than `most`."""
    if most is not None and (cost.most is None or cost.most > most):
        raise _wrong(f"--max-cost {most:g}: {cost.line()}; nothing was made")
    say(f"estimate: {cost.line()}", to=sys.stderr)


def _show(vertex: Any, name: str, as_json: bool) -> None:
    from pipelines.vertex import endpoints

    _print([endpoints.find(vertex, name)], as_json)


def _print(found: list[Any], as_json: bool) -> None:
    """Endpoints, a row for each version that is deployed."""
    from pipelines.costs import row_of, running
    from pipelines.machines import load_machines
    from pipelines.settings import load_settings

    rows: list[dict[str, Any]] = []
    machines = load_machines(load_settings().machines)
    for endpoint in found:
        for one in endpoint.deployed:
            row = row_of(machines, one.machine_type, one.accelerator_type or None, one.accelerator_count)
            cost = running(row, one.least, one.most, spot=one.spot) if row else None
            accelerator = f" + {one.accelerator_count} x {one.accelerator_type}" if one.accelerator_type else ""
            rows.append({
                "endpoint": endpoint.name, "version": one.name, "traffic": one.share,
                "replicas": f"{one.least}" if one.least == one.most else f"{one.least} to {one.most}",
                "machine": one.machine_type + accelerator + (" spot" if one.spot else ""),
                "usd_an_hour": round(cost.least, 4) if cost and cost.least is not None else None,
                "deployment": one.identity,
            })  # fmt: skip
        if not endpoint.deployed:
            rows.append({"endpoint": endpoint.name, **dict.fromkeys(COLUMNS[1:])})
    answer(rows, COLUMNS, as_json, "no endpoints")
