"""From a job to a run on Kubeflow: compiled with requests and node selectors, checked against the server, sent."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

from core import storage
from core.errors import UserError
from core.schemes import REMOTE
from factory.job import AnyJob
from factory.run_folder import new_run_id
from pipelines.checks import read_spec
from pipelines.compile import compile_job, image_name
from pipelines.dataflow import beam_options
from pipelines.findings import Finding
from pipelines.jobs import require_remote, sent_parameters
from pipelines.kubeflow import trainjobs
from pipelines.kubeflow.client import COLLECTS, LEAST, Cluster
from pipelines.kubeflow.manifest import nodes
from pipelines.machines import choose, load_machines
from pipelines.pods import with_secrets
from pipelines.retraining import define_retraining
from pipelines.service import Options, Plan, Submission
from pipelines.settings import Settings
from pipelines.step_options import with_environment, with_step_options, without_cache

ROOTS = ("gs://", "s3://", "minio://")
"""Where KFP's own launcher can read and write artifacts; registry, data and checkpoints are ours to open."""
WORK = ".work"  # below the registry: a folder of checkpoints for each training
_EXPERIMENT = "textdiffusion"


def prepare(cluster: Cluster, job: AnyJob, settings: Settings, options: Options, *, ask: bool = True) -> Plan:
    """Compiles a job and looks for what would go wrong; without `ask` nothing is sent.

    The registry, the data and the checkpoints must be where the cluster's pods reach them, so all are remote.

    Raises:
        UserError: the job is not usable there, or an option has no meaning on Kubeflow.
    """
    _require_meaning(options)
    if not storage.is_remote(settings.registry):
        raise UserError(f"registry: {settings.registry} is on this machine; on Kubeflow set a {REMOTE} prefix")
    if settings.kubeflow_root and not settings.kubeflow_root.startswith(ROOTS):
        raise UserError(f"kubeflow_root: {settings.kubeflow_root}: Kubeflow's launcher opens {', '.join(ROOTS)} alone")
    require_remote(job)
    rows = load_machines(settings.machines)
    if options.machines:
        choose(rows, options.machines[0], "--machine")
    chosen = {"train": options.machines[0] if options.machines else None, "timeout_hours": options.timeout_hours}
    changed = {key: value for key, value in chosen.items() if value is not None}
    if changed:
        job = job.model_copy(update={"resources": job.resources.model_copy(update=changed)})
    image = image_name(settings.image)
    text = compile_job(
        job, "local", image=image, machines=rows, nodes=nodes(job, rows, image, settings),
        definition=define_retraining if options.retraining else None, beam=beam_options(job, settings, image),
    )  # fmt: skip
    spec, *platforms = read_spec(text)
    spec = with_environment(with_step_options(spec, options.steps), settings.kubeflow_environment)
    platform = with_secrets(spec, platforms[0] if platforms else {}, settings.kubeflow_secrets)
    if not options.cache:
        spec = without_cache(spec)
    run = new_run_id(job.job)
    registry, work = settings.registry, storage.join(settings.registry, WORK)
    values = sent_parameters(job, registry=registry, run=run, work=work, ask=ask, retraining=options.retraining)
    experiment = options.experiment or settings.experiment or _EXPERIMENT
    submission = Submission(run, job.job, spec, values, {}, experiment, platform=platform)
    findings = (*_findings(cluster, submission), *nodes_findings(job, settings)) if ask else ()
    return Plan(submission, None, findings, (job.resources.train,))


def _require_meaning(options: Options) -> None:
    """Raises UserError for an option that Kubeflow has no counterpart of."""
    for given, option, instead in (
        (options.spot is not None, "--spot", "choose a row of `machines` that selects a pool of spot nodes"),
        (len(options.machines) > 1, "--machine with several rows", "a pod waits for its node; name one row"),
        (options.max_cost is not None, "--max-cost", "pods have no price; `resources.timeout_hours` ends a training"),
        (options.labels, "--label", "runs have none; use --experiment"),
    ):
        if given:
            raise UserError(f"{option}: is for Vertex AI; on Kubeflow {instead}")


def _findings(cluster: Cluster, submission: Submission) -> Iterator[Finding]:
    """What the server says against a run."""
    if text := namespace_problem(cluster):
        yield Finding(text)
    yield from version_findings(cluster, collects=not {"search", "many"}.isdisjoint(submission.parameters))


def namespace_problem(cluster: Cluster) -> str:
    """What is wrong with the namespace of the settings; empty if nothing is."""
    several, named = bool(cluster.health.get("multi_user")), cluster.namespace
    if several and not named:
        return ("kubeflow_namespace: is not set, and this installation has several users;"
                " write `kubeflow_namespace: ...` into textdiffusion.yaml")  # fmt: skip
    if named and "multi_user" in cluster.health and not several:
        return f"kubeflow_namespace: is {named}, and this installation has one user; remove it from textdiffusion.yaml"
    return ""


def nodes_findings(job: AnyJob, settings: Settings) -> Iterator[Finding]:
    """What a training on several nodes lacks, where kubectl's context can tell; it may be of another cluster."""
    if job.resources.replicas > 1:
        for row in trainjobs.checks(settings):
            if row["state"] != "ok":
                yield Finding(f"{row['check']}: {row['found']}; {row['mend']}", problem=False)


def version_findings(cluster: Cluster, *, collects: bool = False) -> Iterator[Finding]:
    """Whether the server is new enough: for all runs, or for one that collects what steps in a loop made."""
    least, version = COLLECTS if collects else LEAST, cluster.version
    why = "collects what steps in a loop have made" if collects else "lets steps write as no root"
    wanted = ".".join(map(str, least))
    if version is None:
        said = cluster.health.get("tag_name") or "nothing"
        yield Finding(f"kubeflow {cluster.host}: tells no version (says {said}); it must be {wanted} or newer",
                      problem=False)  # fmt: skip
    elif version < least:
        seen = ".".join(map(str, version))
        yield Finding(f"kubeflow {cluster.host}: is version {seen}; {wanted} is the first that {why}")


def submit(cluster: Cluster, plan: Plan) -> str:
    """Starts a run; returns what the server calls it.

    Raises:
        UserError: the server refuses it.
    """
    from kfp_server_api import V2beta1Run

    sent = plan.submission
    with cluster.one_line(f"run {sent.run}"):
        body = V2beta1Run(
            display_name=sent.run,
            description=f"TextDiffusion job {sent.job}",
            experiment_id=experiment(cluster, sent.experiment),
            **payload(cluster, sent),
        )
        made = cluster.client._run_api.run_service_create_run(run=body)
    if not made.run_id:
        raise UserError(f"kubeflow {cluster.host}: answered without the id of a run; is this its address?")
    return str(made.run_id)


def payload(cluster: Cluster, sent: Submission) -> dict[str, Any]:
    """What runs and recurring runs have in common: specification, parameters, pipeline root, service account."""
    from kfp_server_api import V2beta1RuntimeConfig

    spec: dict[str, Any] = dict(sent.spec)
    settings = cluster.settings
    return {
        "pipeline_spec": {"pipeline_spec": spec, "platform_spec": dict(sent.platform)} if sent.platform else spec,
        "runtime_config": V2beta1RuntimeConfig(parameters=dict(sent.parameters), pipeline_root=settings.kubeflow_root),
        "service_account": settings.kubeflow_service_account,
    }


def experiment(cluster: Cluster, name: str) -> str:
    """The id of an experiment, which is made if it is not there."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = cluster.client.create_experiment(name, namespace=cluster.namespace)
    if not made.experiment_id:
        raise UserError(f"kubeflow {cluster.host}: answered without the id of an experiment; is this its address?")
    return str(made.experiment_id)
