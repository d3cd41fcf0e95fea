"""runs, show, lineage, compare, report, gallery: what runs left behind on this machine."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import typer

from core.printable import say
from textdiffusion.cli.output import Json, answer, cell, changes, complete_runs, examples, print_json, print_metrics

RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run's id, the beginning of one, `latest`, or a folder.",
        autocompletion=complete_runs,
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("runs", epilog=examples("runs", "runs --job mnist-small --json", "runs --cloud"))(runs)
    app.command("show", epilog=examples("show", "show latest --all", "show latest --json"))(show)
    app.command("lineage", epilog=examples("lineage latest/train", "lineage mnist-small@3 --json"))(lineage)
    app.command(
        "compare",
        epilog=examples("compare mnist-small-20261124-163819-e460 latest", "compare mnist-small@1 mnist-small@2"),
    )(compare)
    app.command("report", epilog=examples("report latest --open"))(report)
    app.command("gallery", epilog=examples("gallery --open", "gallery --publish gs://my-bucket/gallery"))(gallery)


def runs(
    job: Annotated[str | None, typer.Option(help="Only runs of this job.")] = None,
    on_cloud: Annotated[bool, typer.Option("--cloud", help="The runs on Vertex AI instead.")] = False,
    as_json: Json = False,
) -> None:
    """The runs on this machine, newest last."""
    from factory.run_folder import list_runs

    if on_cloud:
        _cloud_runs(job, as_json)
        return
    rows = []
    for run in list_runs(_root()):
        if job and run.facts["job"] != job:
            continue
        done = sum(step["state"] in ("succeeded", "cached") for step in run.steps)
        cached = sum(bool(step["cached"]) for step in run.steps)
        gate = (run.facts.get("gate") or {}).get("decision")
        row = {name: run.facts.get(name) for name in ("id", "pipeline", "job", "status", "created", "seconds")}
        rows.append(
            {**row, "steps": f"{done}/{len(run.steps)}", "cached": cached, "gate": gate, "folder": str(run.folder)}
        )
    columns = ("id", "pipeline", "status", "created", "seconds", "steps", "cached", "gate")
    answer(rows, columns, as_json, "no runs yet: textdiffusion run JOB")


def _cloud_runs(job: str | None, as_json: bool) -> None:
    from pipelines.machines import load_machines
    from pipelines.settings import load_settings
    from pipelines.vertex.client import Project, Vertex
    from pipelines.vertex.monitor import view
    from pipelines.vertex.submit import list_runs

    settings = load_settings()
    machines, rows = load_machines(settings.machines), []
    for message in reversed(list_runs(Vertex(Project.of(settings)), job=job or "")):
        shown = view(message, machines)
        done = sum(step.state in ("succeeded", "cached") for step in shown.steps)
        rows.append(
            {
                "id": shown.run,
                "job": shown.job,
                "status": shown.state,
                "created": shown.created.isoformat(timespec="seconds") if shown.created else None,
                "seconds": round(shown.seconds, 1),
                "steps": f"{done}/{len(shown.steps)}",
                "cached": sum(step.state == "cached" for step in shown.steps),
                "usd": round(shown.usd, 2),
            }
        )
    columns = ("id", "job", "status", "created", "seconds", "steps", "cached", "usd")
    answer(rows, columns, as_json, "no runs yet: textdiffusion deploy JOB")


def show(
    name: RunName = "latest",
    everything: Annotated[bool, typer.Option("--all", help="Every metric, and what it means.")] = False,
    as_json: Json = False,
) -> None:
    """One run, here or in the cloud: its steps, metrics, gate and where everything is."""
    from textdiffusion.cli.where import find_anywhere

    run = find_anywhere(name)
    if as_json:
        print_json({**run.facts, "folder": str(run.folder), "metrics": run.metrics()})
        return
    facts = run.facts
    say(f"{run.id}  {run.status}  {cell(facts.get('seconds'))} s  job {facts['job']}  {facts.get('created')}")
    say(f"code {facts.get('code_version')}  image {facts.get('image')}  config {facts.get('config_hash')}")
    answer(run.steps, ("name", "state", "seconds", "error"), False)
    if run.metrics():
        print_metrics(run.metrics(), everything=everything)
    if facts.get("gate"):
        from core.evaluation import Verdict

        verdict = Verdict.model_validate(facts["gate"])
        say(f"gate: {verdict.outcome}: {verdict.explanation}")
    say(f"folder: {run.folder}")


def lineage(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT", help="RUN/STEP, RUN/ARTIFACT, a path in a run, a gs:// URI, or MODEL@VERSION."
        ),
    ],
    as_json: Json = False,
) -> None:
    """From an artifact back to data, code version, image and configuration; here, or by Vertex ML Metadata."""
    from core.errors import UserError
    from local.lineage import trace
    from pipelines.settings import load_settings
    from textdiffusion.cli.where import cloud

    settings = load_settings()
    vertex = cloud(settings)
    try:
        if artifact.startswith("gs://") or (vertex and "@" in artifact and settings.registry.startswith("gs://")):
            raise UserError(f"{artifact}: is in the cloud; set project, region and bucket")
        tree = trace(artifact, _root(), settings.registry)
    except UserError:
        if vertex is None:
            raise
        from pipelines.vertex import lineage as cloud_lineage
        from pipelines.vertex.deploy import remote_registry

        tree = cloud_lineage.trace(vertex, artifact, remote_registry(settings))
    if as_json:
        print_json(tree)
        return
    _print_tree(tree, "")


def _print_tree(node: dict[str, Any], indent: str) -> None:
    where = f"  {node['run']}/{node['step']}" if node.get("run") else ""
    say(f"{indent}{node['artifact']}{where}  {str(node.get('hash') or '')[:16]}")
    keys = ("source", "config_hash", "data_hash", "code_version", "image", "seed", "examples_seen", "device")
    facts = "  ".join(f"{key} {str(node[key])[:40]}" for key in keys if node.get(key) not in (None, ""))
    if facts:
        say(f"{indent}    {facts}")
    for parent in node["parents"]:
        _print_tree(parent, indent + "  ")


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN|MODEL@V", help="A run, or a version of a registered model.")],
    second: Annotated[str, typer.Argument(metavar="RUN|MODEL@V", help="Likewise.")],
    as_json: Json = False,
) -> None:
    """Two runs or model versions side by side, here or in the cloud: metrics, and the settings in which they differ."""
    left, right = _side(first), _side(second)
    old, new = left.metrics, right.metrics
    metrics = []
    for name in [*old, *(name for name in new if name not in old)]:
        a, b = (side.get(name, {}).get("value") for side in (old, new))
        both = isinstance(a, int | float) and isinstance(b, int | float)
        floor = (new.get(name) or old.get(name) or {}).get("floor")
        metrics.append({"metric": name, "first": a, "second": b, "change": b - a if both else None, "floor": floor})
    changed = [{"setting": key, "first": a, "second": b} for key, a, b in changes(left.settings, right.settings)]
    note = ""
    if left.terms and right.terms and left.terms != right.terms:
        note = "they were measured on other terms (data, judge, sampling or measures): their values cannot be compared"
    if as_json:
        sides = {"first": left.name, "second": right.name}
        print_json({**sides, "metrics": metrics, "settings": changed, "comparable": not note})
        return
    say(f"first {left.name}, second {right.name}")
    answer(metrics, ("metric", "first", "second", "change", "floor"), False, "neither has metrics")
    answer(changed, ("setting", "first", "second"), False, "the same settings, code and image")
    if note:
        say(f"note: {note}")


class _Side(NamedTuple):
    """What `compare` sets beside another; `terms` is the evaluation key, if it is known."""

    name: str
    metrics: dict[str, Any]
    settings: dict[str, Any]
    terms: str = ""


def _side(name: str) -> _Side:
    """A run, or the version that MODEL@VERSION names."""
    from core.errors import UserError
    from textdiffusion.cli.where import find_anywhere

    if "@" not in name:
        run = find_anywhere(name)
        kept = {key: run.facts.get(key) for key in ("code_version", "image")}
        return _Side(run.id, run.metrics(), {**(run.facts.get("config") or {}), **kept})
    from factory.registry import Registry
    from pipelines.settings import load_settings

    version = Registry(load_settings().registry).resolve(name)
    kept = {key: value for key, value in version.lineage.items() if key != "parents"}
    settings: dict[str, Any] = kept
    try:
        run = find_anywhere(str(version.lineage.get("run")))
    except UserError:  # it is no longer kept, or on another machine
        pass
    else:
        settings = {**(run.facts.get("config") or {}), **{key: run.facts.get(key) for key in ("code_version", "image")}}
    return _Side(version.name, version.metrics, settings, version.evaluation_key)


def report(
    name: RunName = "latest",
    show_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a run's report anew and print its path."""
    from factory.run_folder import find_run

    path = find_run(_root(), name).build_report()
    say(path)
    if show_it:
        import webbrowser

        webbrowser.open(path.as_uri())


def gallery(
    show_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    publish: Annotated[
        str | None,
        typer.Option(metavar="DEST", help="Copy it with its reports to this folder or gs:// prefix."),
    ] = None,
) -> None:
    """Write the gallery of all runs anew and print its path; `run` does so by itself."""
    from core import storage
    from local import gallery as pages
    from pipelines.settings import load_settings

    settings = load_settings()
    path = pages.write(_root(), settings.registry)
    say(path)
    if publish:
        reports = pages.publish(_root(), settings.registry, publish)
        say(f"{storage.join(publish, pages.PAGE)} with {reports} reports")
    if show_it:
        import webbrowser

        webbrowser.open(path.as_uri())


def _root() -> Any:
    from pathlib import Path

    from pipelines.settings import load_settings

    return Path(load_settings().runs).absolute()
