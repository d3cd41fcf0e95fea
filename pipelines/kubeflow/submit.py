"""Runs on any Kubeflow Pipelines v2 host, through `kfp.Client`: the YAML that also runs here, with GPU requests and
node selectors in it."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stdout
from typing import Any

from core import storage
from core.errors import UserError
from core.storage import scratches
from factory.job import AnyJob
from factory.run_folder import new_run_id
from pipelines.checks import read_spec
from pipelines.compile import compile_job, image_name
from pipelines.jobs import parameters, require_remote
from pipelines.machines import load_machines
from pipelines.settings import Settings


def submit_job(job: AnyJob, settings: Settings, *, cache: bool = True) -> dict[str, str]:
    """Compiles a job and starts it on `kubeflow_host`: {"run", "id", "pipeline", "url"}.

    The registry, the data and the checkpoints must be where the cluster's pods reach them, so all are remote.

    Raises:
        UserError: a setting is missing or local, or the host refuses.
    """
    host = settings.require("kubeflow_host").rstrip("/")
    if not storage.is_remote(settings.registry):
        raise UserError(f"registry: {settings.registry} is on this machine; on Kubeflow set a gs:// or s3:// prefix")
    require_remote(job)
    text = compile_job(job, "local", image=image_name(settings.image), machines=load_machines(settings.machines))
    pipeline = str(read_spec(text)[0]["pipelineInfo"]["name"])
    run = new_run_id(job.job)
    values = parameters(job, registry=settings.registry, run=run, work=storage.join(settings.registry, ".work"))
    client = _client(host, settings)
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    with scratches.temporary_folder("kubeflow") as folder, warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        package = folder / "pipeline.yaml"
        package.write_text(text, encoding="utf-8")
        try:
            made = client.create_run_from_pipeline_package(
                str(package),
                arguments=values,
                run_name=run,
                experiment_name=settings.experiment or "textdiffusion",
                namespace=settings.kubeflow_namespace,
                enable_caching=None if cache else False,
            )
        except ApiException as error:
            raise UserError(f"kubeflow {host}: refused: {error.status} {_said(error)}") from None
        except HTTPError as error:
            raise UserError(f"kubeflow {host}: not reachable: {type(error).__name__}") from None
    return {"run": run, "id": made.run_id, "pipeline": pipeline, "url": f"{host}/#/runs/details/{made.run_id}"}


def wait(host: str, identity: str, settings: Settings, *, timeout: float = 86_400.0, interval: float = 10.0) -> str:
    """Waits for a run and returns its state: succeeded, failed, canceled, skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended = _client(host, settings).wait_for_run_completion(identity, timeout, sleep_duration=interval)
    return str(ended.state).rsplit(".", 1)[-1].lower()


def _client(host: str, settings: Settings) -> Any:
    import kfp

    logging.getLogger("kfp").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kfp.Client(
                host=host,
                namespace=settings.kubeflow_namespace or "kubeflow",
                existing_token=settings.kubeflow_token,
            )
    except Exception as error:
        raise UserError(f"kubeflow {host}: not reachable: {' '.join(str(error).split())[:200]}") from None


def _said(error: Any) -> str:
    return " ".join(str(error.body or error.reason).split())[:300]
