"""shards: very many samples, exactly once each, by any number of workers."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from core.printable import say
from textdiffusion.cli.output import examples


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    lines = (
        "shards registry/mnist-small/versions/00001/model --count 100000 --out many",
        "shards gs://my-bucket/model --count 1000000 --out gs://my-bucket/many --worker 3/8 --set sample.steps=16",
    )
    app.command("shards", epilog=examples(*lines))(shards)


def shards(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, path or URI.")],
    count: Annotated[int, typer.Option(min=1, help="Samples in all.")],
    out: Annotated[str, typer.Option(metavar="URI", help="Folder or gs:// prefix that all workers share.")],
    size: Annotated[int, typer.Option(min=1, help="Samples in a shard.")] = 1000,
    worker: Annotated[str, typer.Option(metavar="K/N", help="This is worker K of N, from 0.")] = "0/1",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="sample.steps=16, sample.seed=1")
    ] = None,
) -> None:
    """Draw very many samples into shards; run again, or by several at once, it draws what is missing."""
    import os

    from components.shards import shards as draw
    from core.config import with_overrides
    from core.errors import UserError

    number, _, of = worker.partition("/")
    if not re.fullmatch("[0-9]{1,9}/[0-9]{1,9}", worker):
        raise UserError(f"--worker {worker}: expected K/N, for example 0/4")
    values = with_overrides({"sample": {}}, overrides or ())
    if set(values) != {"sample"}:
        raise UserError(f"--set: found {', '.join(sorted(set(values) - {'sample'}))}; allowed: sample")
    request: dict[str, Any] = {"model": model, "out": out, "count": count, "size": size, **values}
    done = draw({**request, "worker": int(number), "workers": int(of)}, os.environ)
    say(f"{done['drawn']} of {done['shards']} shards drawn here, {done['count']} samples in all: {out}")
