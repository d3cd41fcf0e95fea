"""manifest: a job's training, or a registered model in service, as a Kubernetes object."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from core.printable import say
from textdiffusion.cli.models import RegistryOption
from textdiffusion.cli.output import complete_jobs, examples

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: resources.replicas=4.")
]


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    lines = (
        "manifest mnist-small --out gs://my-bucket/mnist-small",
        "manifest mnist-small --out gs://my-bucket/mnist-small --set resources.replicas=4 --kind PyTorchJob",
        "manifest mnist-small --kind InferenceService --machine l4 --max-replicas 4",
        "manifest mnist-small@4 --kind InferenceService --canary 10",
    )
    app.command("manifest", epilog=examples(*lines))(manifest)


def manifest(
    name: Annotated[
        str,
        typer.Argument(
            metavar="JOB|MODEL",
            help="A predefined job or the path of a .yaml file; for InferenceService MODEL, which follows its champion,"
            " or MODEL@VERSION.",
            autocompletion=complete_jobs,
        ),
    ],
    out: Annotated[
        str | None, typer.Option(metavar="URI", help="Of a training: where its model goes: gs://BUCKET/PREFIX.")
    ] = None,
    kind: Annotated[
        Literal["TrainJob", "PyTorchJob", "InferenceService"],
        typer.Option(help="Of Kubeflow Trainer 2, of the operator before it, or of KServe."),
    ] = "TrainJob",
    overrides: Overrides = None,
    machine: Annotated[str, typer.Option(metavar="ROW", help="Of a service: row of resources.yaml.")] = "cpu",
    least: Annotated[int, typer.Option("--min-replicas", min=0, help="Of a service.")] = 1,
    most: Annotated[int | None, typer.Option("--max-replicas", min=1, help="Left out: as --min-replicas.")] = None,
    canary: Annotated[
        int | None, typer.Option(min=0, max=100, help="Of a service: percent for this version, the rest as before.")
    ] = None,
    registry: RegistryOption = None,
) -> None:
    """Print a Kubernetes object that trains a job on several nodes, or serves a model: ... | kubectl apply -f -"""
    from core.errors import UserError
    from pipelines.compile import image_name
    from pipelines.jobs import load_job
    from pipelines.kubeflow.inference import inference_service
    from pipelines.kubeflow.manifest import manifest as build
    from pipelines.machines import choose, load_machines
    from pipelines.settings import load_settings

    settings = load_settings({"registry": registry})
    image, machines = image_name(settings.image), load_machines(settings.machines)
    namespace = settings.kubeflow_namespace or ""
    if kind == "InferenceService":
        if out is not None or overrides:
            raise UserError("--out and --set are for trainings; a service reads what is registered")
        row = choose(machines, machine, "--machine")
        made = inference_service(
            name, settings.registry, row, image, least=least, most=max(1, least) if most is None else most,
            canary=canary, namespace=namespace,
        )  # fmt: skip
    else:
        if out is None:
            raise UserError("--out: a training needs a place for its model: gs://BUCKET/PREFIX")
        job = load_job(name, overrides or (), [settings.set])
        made = build(job, machines, image, out, kind=kind, namespace=namespace)
    say(made.rstrip(), lines=True)
