"""manifest: a job's training for Kubeflow's trainer."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from core.printable import say
from textdiffusion.cli.output import complete_jobs, examples

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: resources.replicas=4.")
]


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    lines = (
        "manifest mnist-small --out gs://my-bucket/mnist-small",
        "manifest mnist-small --out gs://my-bucket/mnist-small --set resources.replicas=4 --kind PyTorchJob",
    )
    app.command("manifest", epilog=examples(*lines))(manifest)


def manifest(
    name: Annotated[
        str,
        typer.Argument(
            metavar="JOB", help="A predefined job, or the path of a .yaml file.", autocompletion=complete_jobs
        ),
    ],
    out: Annotated[str, typer.Option(metavar="URI", help="Where model and checkpoints go: gs://BUCKET/PREFIX.")],
    kind: Annotated[
        Literal["TrainJob", "PyTorchJob"], typer.Option(help="Of Kubeflow Trainer 2, or of the operator before it.")
    ] = "TrainJob",
    overrides: Overrides = None,
) -> None:
    """Print a Kubernetes object that trains a job on several nodes: ... | kubectl create -f -"""
    from pipelines.compile import image_name
    from pipelines.jobs import load_job
    from pipelines.kubeflow.manifest import manifest as build
    from pipelines.machines import load_machines
    from pipelines.settings import load_settings

    settings = load_settings()
    job = load_job(name, overrides or (), [settings.set])
    image, machines = image_name(settings.image), load_machines(settings.machines)
    say(build(job, machines, image, out, kind=kind, namespace=settings.kubeflow_namespace or "").rstrip(), lines=True)
