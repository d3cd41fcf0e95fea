"""What would fail or cost too much is said in one line before anything is submitted."""

from __future__ import annotations

import json

import pytest

from core.errors import UserError
from pipelines import costs
from pipelines.checks import read_spec
from pipelines.compile import compile_job
from pipelines.concurrency import most_at_once
from pipelines.cron import next_times, with_zone
from pipelines.jobs import load_job
from pipelines.machines import load_machines
from pipelines.settings import load_settings
from pipelines.step_options import step_names, with_step_options
from pipelines.vertex.deploy import Options, prepare
from pipelines.vertex.preflight import limit_findings, parameter_problems, preflight
from pipelines.vertex.quota import quota_findings
from pipelines.vertex.regions import check_region


def only_line(result, words):
    code, _, err = result
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert words in err


@pytest.fixture
def submitted(cloud):
    """Whether anything was submitted since the test began."""
    before = len(cloud.server.pipelines.jobs)
    return lambda: len(cloud.server.pipelines.jobs) - before


MINE = "machine_type: {machine}, cpu: 8, memory_gb: 30, accelerator_type: {accelerator}, accelerator_count: 1"


@pytest.mark.parametrize(
    ("machine", "accelerator", "words"),
    [
        ("e2-standard-4", "NVIDIA_TESLA_T4", "e2-standard-4 does not take NVIDIA_TESLA_T4"),
        ("g2-standard-8", "NVIDIA_TESLA_L4", "no accelerator is called NVIDIA_TESLA_L4; did you mean NVIDIA_L4?"),
    ],
)
def test_machine_that_does_not_exist(cloud, command, submitted, tmp_path, machine, accelerator, words):
    row = MINE.format(machine=machine, accelerator=accelerator)
    (tmp_path / "textdiffusion.yaml").write_text(f"machines: {{mine: {{{row}}}}}\n")
    only_line(command("deploy", "digits", "--machine", "mine"), words)
    assert submitted() == 0


def test_unknown_machine_row(cloud, command):
    only_line(command("deploy", "digits", "--machine", "t5"), "--machine: found 't5'; allowed: cpu, t4")


def test_missing_bucket(cloud, command, submitted, monkeypatch):
    monkeypatch.setenv("TEXTDIFFUSION_BUCKET", "not-there")
    result = command("deploy", "digits")
    only_line(result, "gs://not-there does not exist; create it with `gcloud storage buckets create gs://not-there")
    assert submitted() == 0


def test_bucket_in_another_region(cloud, command, monkeypatch):
    monkeypatch.setenv("TEXTDIFFUSION_REGION", "europe-west4")
    only_line(command("deploy", "digits"), "gs://demo-bucket is in us-central1, the run in europe-west4")


def test_wrong_type(cloud, command, submitted):
    only_line(command("deploy", "digits", "--set", "train.batch_size=many"), "train.batch_size")
    assert submitted() == 0


def test_parameter_of_a_compiled_pipeline_with_the_wrong_type_or_name():
    spec = read_spec(compile_job(load_job("digits"), "vertex"))[0]
    problems = list(parameter_problems(spec, {"train": 3, "epochs": 1, "run": True}))
    assert problems == [
        "parameter epochs: the pipeline has none of that name; allowed: data, data_fingerprint, evaluate, gate,"
        " model, model_name, registry, run, sample, train, work",
        "parameter run: found true; allowed: text",
        "parameter train: found 3; allowed: a mapping",
    ]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("trian.retries=2", "no step is called 'trian'; steps: evaluate, gate, keep, prepare-data"),
        ("train.retrys=2", "no option is called 'retrys'; allowed: retries, cache"),
        ("train.retries=many", "found 'many'; allowed: 0 to 10"),
        ("sample.cache=2", "found 2; allowed: true or false"),
    ],
)
def test_unknown_step_or_option_in_overrides(cloud, command, submitted, option, words):
    only_line(command("deploy", "digits", "--step", option), words)
    assert submitted() == 0


def test_cap_exceeded(cloud, command, submitted):
    result = command("deploy", "mnist-training", "--set", "train.minutes=6000", "--max-cost", "5")
    only_line(result, "--max-cost 5: the run is estimated at about")
    assert submitted() == 0


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 3 * *", "4 fields; expected 5"),
        ("61 3 * * *", "field 1 is '61'; allowed: minute 0-59"),
        ("0 3 * * mo", "field 5 is 'mo'; allowed: day of the week 0-6"),
        ("0 3 30 2 *", "'0 3 30 2 *'"),
    ],
)
def test_cron_typo(cloud, command, cron, words):
    only_line(command("schedule", "create", "digits", "--cron", cron), words)
    assert cloud.server.schedules.schedules == {}


def test_time_zone_typo(cloud, command):
    result = command("schedule", "create", "digits", "--cron", "0 3 * * 1", "--timezone", "Europe/Berln")
    only_line(result, "no such time zone; did you mean Europe/Berlin?")


def test_image_that_was_not_pushed(cloud, command, monkeypatch, submitted):
    monkeypatch.setenv("TEXTDIFFUSION_IMAGE", "us-central1-docker.pkg.dev/demo/factory/textdiffusion:other")
    only_line(command("deploy", "digits"), "textdiffusion:other is not in the registry; push it with `make push`")
    assert submitted() == 0


def test_image_without_a_registry(cloud, command, monkeypatch):
    monkeypatch.setenv("TEXTDIFFUSION_IMAGE", "textdiffusion:1")
    only_line(command("deploy", "digits"), "textdiffusion:1 names no registry that Vertex can pull from")


def test_service_account_that_does_not_exist(cloud, command, monkeypatch):
    monkeypatch.setenv("TEXTDIFFUSION_SERVICE_ACCOUNT", "nobody@demo.iam.gserviceaccount.com")
    only_line(command("deploy", "digits"), "nobody@demo.iam.gserviceaccount.com does not exist")


def test_quota_below_what_is_needed(cloud, command):
    metric = "aiplatform.googleapis.com/custom_model_training_nvidia_t4_gpus"
    cloud.server.platform.quota[("us-central1", metric)] = 0
    try:
        only_line(command("deploy", "digits"), f"{metric} in us-central1 is 0, the run needs 1")
    finally:
        cloud.server.platform.quota.clear()


@pytest.mark.parametrize(
    ("quota", "said", "problem"),
    [(3, "is 3, prepare-data asks Dataflow for machines of 4", True),
     (11, "is 11, prepare-data asks Dataflow for 12 (3 x n1-standard-4 of Dataflow): it gets fewer", False),
     (12, "", False)],
)  # fmt: skip
def test_quota_of_processors_for_the_machines_of_dataflow(cloud, quota, said, problem):
    job = load_job("digits", ["data.source=folder", "data.data_dir=gs://demo-bucket/in", "data.shards.engine=beam"])
    options = {"max_num_workers": 3, "machine_type": "n1-standard-4"}
    spec = read_spec(compile_job(job, "vertex", beam=json.dumps(options)))[0]
    cloud.server.platform.quota[("us-central1", "compute.googleapis.com/cpus")] = quota
    try:
        found = list(quota_findings(cloud.vertex, spec))
    finally:
        cloud.server.platform.quota.clear()
    assert [(said in one.text, one.problem) for one in found] == ([(True, problem)] if said else [])


@pytest.mark.parametrize(("parallel", "need"), [(0, 2), (1, 2), (3, 4)])
def test_quota_is_the_sum_over_what_runs_at_once(cloud, parallel, need):
    """train-judge runs beside train, and beside the trials of a search, which it has none of its own to wait for."""
    metric = "aiplatform.googleapis.com/custom_model_training_nvidia_t4_gpus"
    job = load_job("digits", [f"search.parallel={parallel}"] if parallel else [], search=bool(parallel))
    notes = {}
    for quota in (need - 1, need):
        cloud.server.platform.quota[("us-central1", metric)] = quota
        try:
            plan = prepare(cloud.vertex, job, load_settings(), Options())
        finally:
            cloud.server.platform.quota.clear()
        assert plan.problems == [], "jobs wait for each other"
        notes[quota] = [note for note in plan.notes if note.startswith("quota:")]
    assert notes[need] == []
    assert f"in us-central1 is {need - 1}, the run needs {need} for all that may run at once" in notes[need - 1][0]


def test_steps_in_a_row_need_no_more_than_the_largest_and_branches_add_up():
    task = lambda name, *before: {"componentRef": {"name": f"comp-{name}"}, "dependentTasks": list(before)}  # noqa: E731
    inner = {"dag": {"tasks": {"c": task("c"), "d": task("d", "c")}}}
    spec = {"components": {"comp-inner": inner, **{f"comp-{name}": {} for name in "abcd"}},
            "root": {"dag": {"tasks": {"a": task("a"), "b": task("b", "a"), "inner": task("inner", "a")}}}}  # fmt: skip
    assert most_at_once(spec, {"a": 3}) == 3
    assert most_at_once(spec, {"a": 3, "b": 2}) == 3
    assert most_at_once(spec, {"a": 3, "b": 2, "c": 1, "d": 4}) == 6, "b beside d"


def test_h100_on_demand_is_marked_and_on_spot_is_not(cloud):
    words = "Compute Engine gives a3-highgpu-1g only as spot or flex-start"
    for spot in (False, True):
        plan = prepare(cloud.vertex, load_job("digits"), load_settings(), Options(machines=("h100",), spot=spot))
        assert any(words in note for note in plan.notes) is not spot


def test_data_on_this_machine_cannot_be_read_in_the_cloud(cloud, command, tmp_path):
    result = command("deploy", "mnist-training", "--set", f"data.data_dir={tmp_path}")
    only_line(result, "is on this machine; copy it to gs://BUCKET/data")


def test_project_that_is_not_set(cloud, command, monkeypatch):
    monkeypatch.delenv("TEXTDIFFUSION_PROJECT")
    only_line(command("deploy", "digits"), "project is not set: write `project: ...` into textdiffusion.yaml")


@pytest.mark.parametrize(
    ("region", "words"),
    [("us-centrl1", None), ("us-central", "did you mean us-central1?"), ("us-central1-a", "its region is us-central1")],
)
def test_region(region, words):
    if words is None:
        assert "did you mean us-central1?" in check_region(region), "an unknown region may be a new one"
    else:
        with pytest.raises(UserError, match=words.replace("?", r"\?")):
            check_region(region)


def test_service_refuses_what_preflight_refuses(cloud):
    """The two tables of machines were written apart: no row of resources.yaml is refused by the service."""
    from google.cloud import aiplatform_v1

    for row in load_machines().values():
        machine = {"machine_type": row.machine_type}
        if row.accelerator_type:
            machine |= {"accelerator_type": row.accelerator_type, "accelerator_count": row.accelerator_count}
        pool = {"machine_spec": machine, "replica_count": 1, "container_spec": {"image_uri": "image:1"}}
        job = aiplatform_v1.CustomJob(display_name="row", job_spec={"worker_pool_specs": [pool]})
        cloud.vertex.jobs.create_custom_job(parent=cloud.vertex.project.parent, custom_job=job)


def test_everything_in_order_leaves_only_notes(cloud):
    plan = prepare(cloud.vertex, load_job("digits"), load_settings(), Options())
    assert plan.problems == []
    assert preflight(cloud.vertex, plan.submission, plan.estimate, max_cost=1000) == list(plan.findings)


def test_estimate_is_price_times_time_and_counts_spot_and_replicas():
    job = load_job("mnist-training", ["train.minutes=60", "resources.train=t4"])
    rows = load_machines()
    spec = read_spec(compile_job(job, "vertex"))[0]
    train = next(step for step in costs.estimate(spec, job, rows).steps if step.step == "train")
    hourly = 0.21849885 + 0.4025
    assert train.usd == pytest.approx(hourly * (1 + costs.STARTUP_HOURS))
    spot = load_job("mnist-training", ["train.minutes=60", "resources.spot=true", "resources.replicas=2"])
    spec = read_spec(compile_job(spot, "vertex"))[0]
    again = next(step for step in costs.estimate(spec, spot, rows).steps if step.step == "train")
    assert again.usd == pytest.approx(2 * costs.SPOT * train.usd)


def test_training_without_a_time_budget_is_bounded_by_its_timeout():
    job = load_job("digits", ["resources.timeout_hours=2"])
    spec = read_spec(compile_job(job, "vertex"))[0]
    estimate = costs.estimate(spec, job, load_machines())
    assert estimate.line().startswith("at most ")
    assert next(step for step in estimate.steps if step.step == "train").hours == 2


def worst_case(spec, job):
    """USD of a run whose every step takes all its time and every retry, by the limits in its specification alone."""
    rows, usd = load_machines(), costs.RUN_FEE
    dags = [spec["root"], *(part for part in spec["components"].values() if "dag" in part)]
    leaves = {name: task for dag in dags for name, task in dag["dag"]["tasks"].items()}
    for name, component in spec["components"].items():
        step = name.removeprefix("comp-")
        if "dag" in component:
            continue
        parameters = component.get("inputDefinitions", {}).get("parameters", {})
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        environment = {item["name"]: item["value"] for item in container.get("env", [])}
        jobs = 1 + leaves[step].get("retryPolicy", {}).get("maxRetryCount", 0)
        if step == "trials":
            seconds = leaves["plan-trials"]["inputs"]["parameters"]["timeout_seconds"]["runtimeValue"]["constant"]
            row, jobs = rows["t4"], job.search.trials
        elif "timeout" in parameters:
            seconds = int(parameters["timeout"]["defaultValue"][:-1])
            machine = parameters["worker_pool_specs"]["defaultValue"][0]["machine_spec"]
            row = next(row for row in rows.values() if row.spec() == machine)
            jobs *= sum(int(pool["replica_count"]) for pool in parameters["worker_pool_specs"]["defaultValue"])
            if parameters["strategy"]["defaultValue"] == "SPOT":
                jobs *= costs.SPOT
        else:
            seconds, row = int(environment["TEXTDIFFUSION_STEP_SECONDS"]), rows["cpu"]
        assert seconds >= 60, step
        usd += jobs * row.price() * (seconds / 3600 + costs.STARTUP_HOURS)
    return usd


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ([], Options(max_cost=2.0)),
        (["resources.replicas=2"], Options(max_cost=4.0, spot=True, steps=("sample.retries=2",))),
        ([], Options(max_cost=3.0, retraining=True)),
        (["train.batch_size=64"], Options(max_cost=9.0, machines=("t4", "l4"))),
        (["search.trials=4", "search.parallel=2", "search.minutes=5"], Options(max_cost=6.0)),
    ],
    ids=["plain", "spot, replicas and retries", "retraining", "two machines", "search"],
)
def test_all_steps_that_take_all_their_time_cost_no_more_than_the_cap(cloud, changes, options):
    job = load_job("digits", ["train.minutes=15", *changes], search="search.trials=4" in changes)
    plan = prepare(cloud.vertex, job, load_settings(), options)
    assert plan.problems == []
    worst = worst_case(plan.submission.spec, job)
    assert worst <= options.max_cost
    if len(options.machines) < 2:
        assert worst == pytest.approx(options.max_cost, rel=0.02), "and nothing of it is withheld"


def test_limits_do_not_depend_on_earlier_runs_which_would_keep_steps_out_of_the_cache(cloud, monkeypatch):
    job = load_job("digits", ["train.minutes=15"])
    before = prepare(cloud.vertex, job, load_settings(), Options(max_cost=2.0))
    monkeypatch.setattr("pipelines.vertex.deploy.history", lambda *_: {"sample": 0.9, "evaluate": 0.01})
    after = prepare(cloud.vertex, job, load_settings(), Options(max_cost=2.0))
    assert before.submission.spec == after.submission.spec
    assert any("leaves sample" in note and "it took 3240 s" in note for note in after.notes)


def test_a_cap_that_leaves_a_step_no_time_is_refused():
    found = list(limit_findings({"gate": 12, "train": 600}, {}, 0.5))
    assert [finding.text for finding in found] == [
        "--max-cost 0.5: leaves gate 12 s, the start of machines apart; raise it"
    ]


def test_without_a_cap_no_step_with_a_gpu_may_take_the_services_seven_days():
    spec = read_spec(compile_job(load_job("digits", ["resources.timeout_hours=3"]), "vertex"))[0]
    for step in ("train-judge", "train", "sample", "evaluate", "gate"):
        parameters = spec["components"][f"comp-{step}"]["inputDefinitions"]["parameters"]
        assert parameters["timeout"]["defaultValue"] == "10800s", step


def test_step_options_reach_the_steps_and_no_other():
    spec = read_spec(compile_job(load_job("digits"), "vertex"))[0]
    changed = with_step_options(spec, ["train.retries=3", "register.retries=1", "sample.cache=false"])
    tasks = {**changed["root"]["dag"]["tasks"], **changed["components"]["comp-condition-2"]["dag"]["tasks"]}
    assert {name for name, task in tasks.items() if "retryPolicy" in task} == {"train", "register"}
    assert tasks["train"]["retryPolicy"]["maxRetryCount"] == 3
    assert tasks["sample"]["cachingOptions"] == {}
    assert {"prepare-data", "train-judge", "train", "sample", "evaluate", "gate", "register", "keep"} == set(
        step_names(spec)
    )


def test_cron_is_read_in_its_zone():
    assert with_zone("0 3 * * 1", "Europe/Berlin") == "CRON_TZ=Europe/Berlin 0 3 * * 1"
    assert with_zone("TZ=Asia/Tokyo 0 3 * * 1", "UTC") == "CRON_TZ=Asia/Tokyo 0 3 * * 1"
    first, second = next_times("30 2 * * 0", "Europe/Berlin", 2)
    assert (first.hour, first.minute, first.weekday()) == (2, 30, 6)
    assert (second.date() - first.date()).days == 7
