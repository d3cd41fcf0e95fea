"""`textdiffusion serve`, and `python -m serving` in the image: the options as the command line has them."""

from __future__ import annotations

import os
from typing import Annotated

import typer

NEEDED = ("fastapi", "prometheus_client", "starlette", "uvicorn")  # the extra `serving`


def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="MODEL, MODEL@VERSION, a run's id, a model folder's path or gs:// URI, or hf://USER/REPO. MODEL"
            " follows its champion. Left out: AIP_STORAGE_URI.",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Left out: 127.0.0.1, and 0.0.0.0 with AIP_HTTP_PORT.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: any free one. Left out: AIP_HTTP_PORT, then 8080.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=10_000, help="Of the sampler. Left out: as measured.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, max=50, help="Left out: as measured.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=1024, help="Samples in a batch.")] = None,
    queue: Annotated[int | None, typer.Option(min=1, help="Samples that may wait [256].")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds that a request may take [60].")] = None,
    max_count: Annotated[int | None, typer.Option(min=1, help="Samples of a request [64].")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Steps that a request may ask for [100].")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens of a text [1024].")] = None,
    poll: Annotated[float | None, typer.Option(help="Seconds between looks for a new champion; 0: never [15].")] = None,
    grace: Annotated[float | None, typer.Option(help="Seconds for queued requests after SIGTERM [30].")] = None,
    watch: Annotated[
        str | None,
        typer.Option(help="Folder or gs:// prefix to keep latencies and samples in, for `textdiffusion watch`."),
    ] = None,
    watch_keep: Annotated[int | None, typer.Option(min=2, help="Samples that are kept, the newest [512].")] = None,
    registry: Annotated[str | None, typer.Option(help="Folder or gs:// prefix of the registry.")] = None,
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
) -> None:
    """Answer HTTP requests with samples of a model, until stopped."""
    from core.errors import UserError
    from serving.options import options_of

    given = dict(
        model=model, host=host, port=port, steps=steps, guidance=guidance, batch=batch, queue=queue, deadline=deadline,
        max_count=max_count, max_steps=max_steps, max_length=max_length, poll=poll, grace=grace, registry=registry,
        runs=runs, watch=watch, watch_keep=watch_keep,
    )  # fmt: skip
    options = options_of(given, os.environ)
    try:
        from serving.server import serve as run
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise UserError(f"{error.name} is not installed: pip install 'textdiffusion[serving]'") from None
    run(options)
