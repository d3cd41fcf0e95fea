"""`textdiffusion probe`: one small paid run that reports what only the service knows.

    look     a custom job with a GPU     \
    step     a container of the pipeline  } each writes facts.json and ends
    exit-2   a custom job that exits with 2: how often does the service begin it?

Every step has a time limit and no step is retried by the pipeline; all limits together cost less than `MOST`.
"""

# mypy: disable-error-code="untyped-decorator"
from collections.abc import Callable, Mapping
from typing import Any

from components.step import IMAGE, variant
from core import storage
from core.config import ResourcesConfig
from core.errors import UserError
from core.storage import scratches
from factory.run_folder import new_run_id
from pipelines import costs
from pipelines.checks import read_spec
from pipelines.compile import image_name
from pipelines.custom_job import VertexOptions, custom_job
from pipelines.jobs import load_job
from pipelines.machines import choose, load_machines
from pipelines.service import PreflightError, Submission
from pipelines.settings import Settings
from pipelines.step_options import with_environment
from pipelines.vertex.caps import with_limits
from pipelines.vertex.client import Vertex
from pipelines.vertex.deploy import environment
from pipelines.vertex.monitor import view
from pipelines.vertex.preflight import preflight
from pipelines.vertex.submit import MAX_COST, get_run, submit
from pipelines.views import View, follow

MOST = 1.0  # USD
SECONDS = 900  # of each step
FILE = "probe.json"


def prepare(vertex: Vertex, settings: Settings, gpu: str) -> tuple[Submission, costs.Estimate]:
    """The run and what it costs if every step takes all its time.

    Args:
        vertex: the services.
        settings: of this machine and project.
        gpu: the row of resources.yaml that `look` runs on.

    Raises:
        UserError: it could cost more than `MOST`, or that cannot be known.
    """
    rows = load_machines(settings.machines)
    machine = choose(rows, gpu, "--machine")
    options = VertexOptions(
        service_account=settings.service_account or "",
        network=settings.network or "",
        encryption_key=settings.encryption_key or "",
        labels=settings.labels,
    )
    spec = _compiled(machine, choose(rows, "cpu", "cpu"), options, image_name(settings.image))
    spec = with_environment(spec, environment(vertex.project))
    spec = with_limits(spec, dict.fromkeys(("look", "step", "exit-2"), SECONDS))
    hours = SECONDS / 3600 + costs.STARTUP_HOURS
    estimate = costs.estimate(spec, load_job("digits"), rows, dict.fromkeys(("look", "step", "exit-2"), hours))
    if estimate.unpriced or estimate.usd > MOST:
        raise UserError(f"--machine {gpu}: the probe could cost {estimate.line()}; allowed: {MOST:g} USD")
    run = new_run_id("probe")
    attempts = f"gs://{vertex.project.bucket}/probe/{run}/attempts"
    labels = {**settings.labels, MAX_COST: f"{MOST:.2f}".replace(".", "_")}
    return Submission(run, "probe", spec, {"attempts": attempts}, labels, fail_fast=False), estimate


def probe(vertex: Vertex, settings: Settings, gpu: str, say: Callable[[str], None], interval: float) -> dict[str, Any]:
    """Runs the probe to its end; what probe.json holds.

    Raises:
        UserError: something would have gone wrong, or a step that should have reported did not.
    """
    submission, estimate = prepare(vertex, settings, gpu)
    findings = preflight(vertex, submission, estimate, max_cost=MOST)
    problems = [finding.text for finding in findings if finding.problem]
    if problems:
        raise PreflightError(problems)
    say(f"at most {estimate.usd:.2f} USD; run: {submission.run}")
    submit(vertex, submission)
    rows = load_machines(settings.machines)
    shown = follow(lambda: view(get_run(vertex, submission.run), rows), lambda now: None, interval=interval)
    return collected(vertex, submission, shown)


def collected(vertex: Vertex, submission: Submission, shown: View) -> dict[str, Any]:
    """The facts that the steps of an ended probe left."""
    prefix = submission.parameters["attempts"].partition(f"gs://{vertex.project.bucket}/")[2]
    begun = sum(1 for _ in vertex.bucket(vertex.project.bucket).list_blobs(prefix=f"{prefix}/"))
    observed: dict[str, Any] = {"run": shown.run, "region": vertex.project.region, "usd": round(shown.usd or 0.0, 3)}
    for name in ("look", "step"):
        step = shown.step(name)
        if step.state != "succeeded":
            raise UserError(f"probe: step {name} is {step.state}: {step.error or 'see its log'};"
                            f" textdiffusion monitor {shown.run} --logs --step {name}")  # fmt: skip
        observed[name] = storage.read_json(storage.join(step.artifacts["facts"]["uri"], "facts.json"))
    return {**observed, "exit_2": {"state": shown.step("exit-2").state, "begun": begun}}


def rows_of(observed: Mapping[str, Any], before: str = "") -> list[dict[str, str]]:
    """probe.json as rows {"fact", "found"}."""
    rows = []
    for key, value in observed.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            rows += rows_of(value, f"{name}: ")
        elif isinstance(value, list):
            rows += [{"fact": name, "found": str(item)} for item in value] or [{"fact": name, "found": "none"}]
        else:
            rows.append({"fact": name, "found": str(value)})
    return rows


def _compiled(gpu: Any, cpu: Any, options: VertexOptions, image: str) -> dict[str, Any]:
    from kfp import compiler, dsl

    from components.probe import exit_2, look

    limits = ResourcesConfig(timeout_hours=SECONDS / 3600)
    in_job = custom_job(look, gpu, limits, options)
    failing = custom_job(exit_2, cpu, limits, options, retries=True)  # which it is there to count
    in_step = variant(look, [], "step")

    @dsl.pipeline(name="probe", description="What only the service can tell")
    def pipeline(attempts: str) -> None:
        looks = (in_job(), in_step())
        for task in (*looks, failing(attempts=attempts).after(*looks)):  # the facts first, then what is there to fail
            task.set_caching_options(enable_caching=False)

    with scratches.temporary_folder("probe") as folder:
        path = folder / "probe.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return read_spec(path.read_text(encoding="utf-8").replace(IMAGE, image))[0]
