"""From a job to a run in the cloud: compile, place, estimate, check, submit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from core import storage
from core.errors import UserError
from core.storage.remote import PAYER
from factory.job import AnyJob
from factory.run_folder import new_run_id
from pipelines import costs
from pipelines.checks import read_spec
from pipelines.compile import compile_job, image_name
from pipelines.custom_job import options_of
from pipelines.dataflow import beam_options
from pipelines.jobs import require_remote, sent_parameters
from pipelines.machines import Machine, choose, load_machines
from pipelines.retraining import define_retraining
from pipelines.service import Options, Plan, Say, Submission
from pipelines.settings import Settings
from pipelines.step_options import with_environment, with_machine, with_step_options, without_cache
from pipelines.vertex.caps import limits, with_limits
from pipelines.vertex.client import ENDPOINT, Project, Vertex
from pipelines.vertex.monitor import view
from pipelines.vertex.preflight import fallback_findings, limit_findings, preflight
from pipelines.vertex.submit import MACHINES, MAX_COST, check_experiment, list_runs, submit


def remote_registry(settings: Settings) -> str:
    """The registry of cloud runs: the one that is set, if it is remote, otherwise the bucket's."""
    return settings.registry if storage.is_remote(settings.registry) else Project.of(settings).registry


def prepare(vertex: Vertex, job: AnyJob, settings: Settings, options: Options, *, ask: bool = True) -> Plan:
    """Compiles and places a job and looks for everything that would go wrong.

    Args:
        vertex: the services.
        job: what to run.
        settings: of this machine and project.
        options: of the command line.
        ask: ask the services too. Otherwise nothing is sent and no credentials are needed, and what only they know is
            not looked at.

    Raises:
        UserError: the job itself is not usable (an unknown machine, step or option).
    """
    rows = load_machines(settings.machines)
    resources = {"spot": options.spot, "timeout_hours": options.timeout_hours}
    resources = {key: value for key, value in resources.items() if value is not None}
    if resources:
        job = job.model_copy(update={"resources": job.resources.model_copy(update=resources)})
    machines = options.machines or (job.resources.train,)
    chosen = [choose(rows, name, "--machine") for name in machines]
    experiment = options.experiment or settings.experiment or ""
    if experiment:
        check_experiment(experiment)
    require_remote(job)
    labels = {**settings.labels, **(options.labels or {})}
    spec = _compiled(job, settings, rows, options)
    spec = with_step_options(spec, options.steps)
    spec = with_environment(spec, environment(vertex.project))
    specs = [with_machine(spec, machine) for machine in chosen]
    run = new_run_id(job.job)
    registry, work = remote_registry(settings), f"gs://{vertex.project.bucket}/work"
    values = sent_parameters(job, registry=registry, run=run, work=work, ask=ask, retraining=options.retraining)
    max_cost = options.max_cost if options.max_cost is not None else settings.max_cost
    took = history(vertex, job.job, rows) if ask else {}
    estimates = [costs.estimate(spec, job, rows, took) for spec in specs]
    spec, expected = specs[0], estimates[0]
    ends: dict[str, int] = {}
    if max_cost is not None:  # it must hold on whichever machine the run ends
        each = [limits(spec, job, rows, max_cost) for spec in specs]
        ends = {step: min(found[step] for found in each if step in found) for step in set().union(*each)}
        spec = with_limits(spec, ends)
        labels[MAX_COST] = f"{max_cost:.2f}".replace(".", "_")
    labels[MACHINES] = "_".join(machines)
    submission = Submission(run, job.job, spec, values, labels, experiment)
    findings = preflight(vertex, submission, expected, max_cost=max_cost, ask=ask)
    if max_cost is not None and not any(finding.problem for finding in findings):
        findings += limit_findings(ends, took, max_cost)
    if not any(finding.problem for finding in findings) and ask:
        for name, other, estimated in list(zip(machines, specs, estimates, strict=True))[1:]:
            findings += fallback_findings(vertex, name, other, estimated, max_cost)
    return Plan(submission, expected, tuple(findings), machines)


def start(vertex: Vertex, plan: Plan, settings: Settings, tell: Say) -> None:
    """Submits what was prepared, and tells what it will cost, its id and its page."""
    if not storage.is_remote(settings.registry):
        tell(f"note: the model will be registered in {remote_registry(settings)}; write `registry:"
             f" {remote_registry(settings)}` into textdiffusion.yaml and `textdiffusion models` reads it")  # fmt: skip
    if plan.estimate:
        tell(f"estimate: {plan.estimate.line()}")
    url = submit(vertex, plan.submission)
    tell(f"run: {plan.submission.run}")
    tell(f"console: {url}")


def history(vertex: Vertex, job: str, rows: Mapping[str, Machine]) -> dict[str, float]:
    """Hours that each step took when it last ran to its end in a run of the job; empty if that cannot be read."""
    seconds: dict[str, float] = {}
    try:
        runs = list_runs(vertex, job=job, limit=5)
    except UserError:
        return {}
    for run in runs:
        for step in view(run, rows).steps:
            if step.state == "succeeded":
                seconds.setdefault(step.name, step.seconds / 3600)
    return seconds


def _compiled(job: AnyJob, settings: Settings, rows: Mapping[str, Machine], options: Options) -> dict[str, Any]:
    image = image_name(settings.image)
    text = compile_job(
        job,
        "vertex",
        image=image,
        machines=rows,
        options=options_of(settings, job),
        beam=beam_options(job, settings, image, os.environ.get(ENDPOINT, "")),
        definition=define_retraining if options.retraining else None,
    )
    spec = read_spec(text)[0]
    return spec if options.cache else without_cache(spec)


def environment(project: Project) -> dict[str, str]:
    """What every container of a run has in its environment."""
    variables = {"TEXTDIFFUSION_PROJECT": project.project, "TEXTDIFFUSION_REGION": project.region}
    variables |= {PAYER: project.billing_project} if project.billing_project else {}
    return variables | ({ENDPOINT: project.endpoint} if project.endpoint else {})
