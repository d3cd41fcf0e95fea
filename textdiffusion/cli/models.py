"""models, promote, rollback, download, generate: the registry, and what is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from core.printable import say
from textdiffusion.cli.output import FIRST, Json, answer, complete_models, examples, print_json

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model.", autocompletion=complete_models)]
RegistryOption = Annotated[str | None, typer.Option("--registry", help="Folder or gs:// prefix of the registry.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command(
        "models", epilog=examples("models", "models mnist-small --json", "models --registry gs://my-bucket/registry")
    )(models)
    app.command("promote", epilog=examples("promote mnist-small@3 --reason 'looked at by hand'"))(promote)
    app.command("rollback", epilog=examples("rollback mnist-small"))(rollback)
    app.command("download", epilog=examples("download latest copy/", "download mnist-small@3 model/"))(download)
    app.command(
        "generate",
        epilog=examples(
            "generate --model mnist-small --class 7",
            "generate --model mnist-small --count 8 --out digits.gif",
            "generate --model pydoc --prompt 'The value of '",
            "generate --model pydoc --block 32 --steps 16",
            "generate --model pydoc --prompt 'If the object ___ is raised.' --count 3",
            "generate --model latest",
            "generate --model hf://me/digits --class 7",
            "generate --model gs://my-bucket/registry/mnist-small/versions/00003/model",
        ),
    )(generate)


def models(
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this model, with its history.")] = None,
    registry: RegistryOption = None,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Bring the Vertex AI Model Registry up to date first.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The registered models and their versions; the champion is the one in service."""
    from report.metrics import ordered

    store = _registry(registry)
    if mirror:
        for model in [name] if name else store.models():
            _mirror(store, model, always=True)
    rows = []
    for model in [name] if name else store.models():
        for version, champion in store.listed(model):
            metrics = {key: entry.get("value") for key, entry in version.metrics.items()}
            told = ordered(key for key, value in metrics.items() if value is not None)[:FIRST]
            rows.append(
                {
                    "model": model,
                    "version": version.version,
                    "alias": "champion" if champion else None,
                    "state": version.state(champion=champion),
                    "created": version.created,
                    "run": version.lineage.get("run"),
                    "metrics": metrics if as_json else "  ".join(f"{key} {_short(metrics[key])}" for key in told),
                    "weights": version.weights_sha256 if as_json else version.weights_sha256[:12],
                    "uri": version.uri,
                }
            )
    columns = ("model", "version", "state", "created", "run", "metrics", "weights")
    if as_json and name:
        print_json({"versions": rows, "history": store.history(name)})
        return
    answer(rows, columns, as_json, f"no models in {store.root}")
    for row in {row["model"]: row for row in rows}.values():  # the newest version of each
        if row["state"] == "provisional" and not as_json:
            promote_it = f"textdiffusion promote {row['model']}@{row['version']}"
            say(f"{row['model']}: provisional is registered, but not in service; to put it there: {promote_it}")
    if name:
        answer(store.history(name), ("created", "event", "version", "reason"), False, "no history")


def promote(
    name: Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="The version that becomes champion.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept in the history.")] = "by hand",
    registry: RegistryOption = None,
) -> None:
    """Make a version the champion."""
    from core.errors import UserError

    model, _, number = name.partition("@")
    if not re.fullmatch("[0-9]{1,9}", number):
        raise UserError(f"{name}: expected MODEL@NUMBER, for example mnist-small@3")
    store = _registry(registry)
    version = store.promote(model, int(number), _kept(reason))
    say(f"{model}: version {version.version} is champion")
    _show(store)
    _mirror(store, model)


def _kept(reason: str) -> str:
    """`reason`, unless there is a credential in it, which the history would keep."""
    from core.errors import UserError
    from core.secrets import without_secrets

    try:
        return without_secrets(reason)
    except ValueError:
        raise UserError("--reason: holds a credential, which the history would keep; leave it out") from None


def rollback(
    name: ModelName,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the history.")] = "by hand",
    registry: RegistryOption = None,
) -> None:
    """Make the champion before the present one champion again."""
    store = _registry(registry)
    version = store.rollback(name, _kept(reason))
    say(f"{name}: version {version.version} is champion again")
    _show(store)
    _mirror(store, name)


def download(
    name: Annotated[
        str, typer.Argument(metavar="RUN|MODEL|URI", help="A run, MODEL@VERSION, hf://USER/REPO, or a folder's URI.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to copy into.")],
    registry: RegistryOption = None,
) -> None:
    """Copy a run or a model version here, resumable; every file is verified by its hash."""
    from core.errors import UserError
    from local.downloads import fetch
    from pipelines.settings import load_settings
    from textdiffusion.cli.where import cloud, configured

    settings = load_settings({"registry": registry})
    vertex = cloud(settings)
    if vertex is not None and name.startswith("gs://"):
        from pipelines.vertex.downloads import fetch_tree

        say(f"{fetch_tree(vertex, name, target)} files in {target}")
        return
    try:
        say(f"{fetch(name, target, Path(settings.runs), settings.registry)} files in {target}")
    except UserError as here:
        service = configured(settings)
        if service is None or "@" in name or "/" in name or not str(here).startswith("run "):
            raise
        run = service.download(name, target, say)
        say(f"{run.id}: {run.status}, in {target}")


def generate(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="MODEL, MODEL@VERSION, a run's id, a model folder's path or gs:// URI, or hf://USER/REPO.",
            autocompletion=complete_models,
        ),
    ],
    prompt: Annotated[str | None, typer.Option(help="Text to continue; ___ marks what is to be filled in.")] = None,
    label: Annotated[
        str | None, typer.Option("--class", help="Class of the image by name, as prepare-data lists them; -1: none.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Left out: another one each time.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=10_000, help="Of the sampler. Left out: as measured.")] = None,
    block: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Text: tokens written together. Left out: as measured.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, max=50, help="Weight of the condition; 1: none. Left out: as measured.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Images: .png, .gif (the way from noise) or a folder; text: a folder."),
    ] = None,
    registry: RegistryOption = None,
    as_json: Json = False,
) -> None:
    """Draw samples here, now; a terminal shows images, and text while it comes out of noise."""
    from rich.console import Console

    from local import terminal
    from local.generating import generate as draw
    from pipelines.settings import load_settings

    settings = load_settings({"registry": registry})
    wishes: dict[str, Any] = {"count": count, "seed": seed, "steps": steps, "block": block, "guidance": guidance}
    console = Console(stderr=as_json, highlight=False)
    with terminal.resolving(console) as watch:
        result = draw(
            model, settings.registry, wishes, runs=Path(settings.runs).absolute(),
            prompt=prompt, label=label, out=out, watch=watch,
        )  # fmt: skip
    picture = result.pop("picture", None)
    if as_json:
        print_json(result)
        return
    for text in result.get("texts", []):
        say(text, lines=True)
    if picture is not None and console.is_terminal:
        console.print(terminal.picture(console, picture), end="")
    if result.get("file"):
        say(result["file"])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _registry(root: str | None) -> Any:
    from factory.registry import Registry
    from pipelines.settings import load_settings

    return Registry(load_settings({"registry": root}).registry)


def _show(store: Any) -> None:
    """Lets the gallery, if there is one here, show who is champion now."""
    from pipelines.settings import load_settings

    runs = Path(load_settings().runs)
    if (runs / "index.html").is_file():
        from local import gallery

        gallery.write(runs.absolute(), store.root)


def _mirror(store: Any, model: str, *, always: bool = False) -> None:
    """Lets the Vertex AI Model Registry follow a registry in the cloud, if the settings name a project."""
    from components.vertex_registry import mirror
    from pipelines.compile import image_name
    from pipelines.settings import load_settings
    from pipelines.vertex.client import Project, one_line
    from textdiffusion.cli.where import cloud

    settings = load_settings()
    vertex = cloud(settings)
    if always:
        Project.of(settings)  # says what is missing
    if vertex is None or not store.root.startswith("gs://"):
        return
    with one_line("Vertex AI Model Registry"):
        done = mirror(vertex.models, vertex.project.parent, store, model, image_name(settings.image))
    new = f", {len(done['uploaded'])} versions added" if done["uploaded"] else ""
    champion = f"{model}@champion is version {done['champion']}" if done["champion"] else f"{model} has no champion"
    say(f"Vertex AI Model Registry: {champion}{new}")
