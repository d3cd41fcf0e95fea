"""export, push, playground: a model for elsewhere."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from core.names import inside
from core.printable import say
from textdiffusion.cli.models import RegistryOption
from textdiffusion.cli.output import Json, complete_models, examples, print_json


class Kind(StrEnum):
    """What a model can be exported to."""

    HUB = "hub"
    ONNX = "onnx"
    TORCH = "torch"
    DIFFUSERS = "diffusers"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="MODEL, MODEL@VERSION, a run's id, a model folder's path or gs:// URI, or hf://USER/REPO.",
        autocompletion=complete_models,
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, max=10_000, help="Of the sampler. Left out: as measured.")]
Guidance = Annotated[float | None, typer.Option(min=0, max=50, help="1: none. Left out: as measured.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command(
        "export",
        epilog=examples(
            "export digits --to onnx --out digits-onnx",
            "export digits@3 --to hub --out digits-folder --steps 8",
            "export pydoc --to torch --out pydoc-torch",
            "export digits --to diffusers --out digits-diffusers",
        ),
    )(export)
    app.command(
        "push",
        epilog=examples(
            "push digits me/digits --licence mit",
            "push pydoc@2 me/pydoc --licence cc-by-4.0 --public",
            "push shakespeare-training me/shakespeare --steps 8",
        ),
    )(push)
    app.command(
        "playground",
        epilog=examples(
            "playground digits",
            "playground shakespeare-training --out play --prompt 'First Citizen: ___ speak.'",
            "playground digits --out play --runtime onnxruntime-web-1.30.0.tgz",
        ),
    )(playground)


def export(
    model: Model,
    to: Annotated[Kind, typer.Option("--to", help="Format.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an export that is there is replaced.")],
    steps: Steps = None,
    guidance: Guidance = None,
    registry: RegistryOption = None,
    as_json: Json = False,
) -> None:
    """Write a model for use without this package, and compare its samples with ours before it is done."""
    from pipelines.settings import load_settings
    from serving.export.writing import export as write

    settings = load_settings({"registry": registry})
    wishes = {"steps": steps, "guidance": guidance}
    facts = write(model, to.value, out, settings.registry, Path(settings.runs).absolute(), wishes)
    _answer(facts, out, as_json=as_json)


def push(
    model: Model,
    repository: Annotated[str, typer.Argument(metavar="USER/REPO", help="Of the Hub; made if it is not there.")],
    licence: Annotated[
        str, typer.Option(help="Of the weights, by the Hub's name: mit, cc-by-4.0. Left out: none.")
    ] = "",
    public: Annotated[bool, typer.Option("--public", help="A repository that is made is seen by everybody.")] = False,
    steps: Steps = None,
    guidance: Guidance = None,
    registry: RegistryOption = None,
    as_json: Json = False,
) -> None:
    """Publish a model on the Hugging Face Hub, with a model card; `generate --model hf://USER/REPO` reads it."""
    from pipelines.settings import load_settings
    from serving.export.pushing import push as publish

    settings = load_settings({"registry": registry})
    wishes = {"steps": steps, "guidance": guidance}
    runs = Path(settings.runs).absolute()
    facts = publish(model, repository, settings.registry, runs, wishes, licence=licence, public=public)
    _answer(facts, facts["url"], as_json=as_json)


def playground(
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write; a playground that is there is replaced. Left out: playground/MODEL among the runs,"
            " where their gallery links to it."
        ),
    ] = None,
    prompt: Annotated[str, typer.Option(help="Text to begin with; ___ marks what is to be filled in.")] = "",
    runtime: Annotated[
        Path | None,
        typer.Option(help="ONNX Runtime Web's npm package. Left out: fetched once by npm, then from the cache."),
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    registry: RegistryOption = None,
    as_json: Json = False,
) -> None:
    """Write a page in which the browser itself runs the model; it opens from a disk or from any static server."""
    from local import gallery
    from pipelines.settings import load_settings
    from serving.playground.writing import write

    settings = load_settings({"registry": registry})
    runs, wishes = Path(settings.runs).absolute(), {"steps": steps, "guidance": guidance}
    name = re.sub(r"[^\w.@-]+", "-", model).strip(".-") or "model"
    linked, out = out is None, out or inside(Path(settings.runs, gallery.PLAYGROUNDS), name)
    facts = write(model, out, settings.registry, runs, wishes, prompt, runtime)
    if linked:
        gallery.write(runs, settings.registry)
    _answer(facts, out, as_json=as_json)
    if not as_json:
        say(f"open {out / 'index.html'}")


def _answer(facts: dict[str, Any], out: Path | str, *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for one in facts["differences"]:
        say(f"{one['file']}: differs from our samples by at most {one['largest']:.1e} (allowed: {one['allowed']:g})")
    say(f"{sum(facts['files'].values()) / 1e6:.1f} MB in {out}")
