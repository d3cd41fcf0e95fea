"""The fake Vertex AI, called by the real clients: what it refuses, what it runs and what it remembers."""

import time
from types import SimpleNamespace

import pytest
import yaml
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1 as v1
from kfp import dsl

from pipelines.vertex.submit import RUN_ID
from tests.fakes import tiny
from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer
from tests.fakes.vertex.step import Step

PARENT = "projects/demo/locations/us-central1"


@pytest.fixture(scope="module")
def gcs():
    with GcsServer() as server:
        server.create_bucket("bucket")
        yield server


@pytest.fixture(scope="module")
def vertex(gcs):
    with VertexServer(gcs) as server:
        yield server


@pytest.fixture
def held(gcs):
    with VertexServer(gcs, hold=True) as server:
        yield server


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return yaml.safe_load(tiny.compiled(tmp_path_factory.mktemp("spec") / "tiny.yaml", retries=1).read_text())


def client(kind, server):
    return kind(credentials=AnonymousCredentials(), client_options={"api_endpoint": server.url}, transport="rest")


def job(spec, *, root="gs://bucket/runs", **parameters):
    return v1.PipelineJob(
        display_name="tiny",
        pipeline_spec=spec,
        runtime_config={"gcs_output_directory": root, "parameter_values": {"config": {"size": 1}, **parameters}},
    )


def submit(server, pipeline_job, identity):
    made = client(v1.PipelineServiceClient, server).create_pipeline_job(
        parent=PARENT, pipeline_job=pipeline_job, pipeline_job_id=identity
    )
    return finished(server, made.name)


def finished(server, name, timeout=60):
    pipelines = client(v1.PipelineServiceClient, server)
    deadline = time.monotonic() + timeout
    while not (found := pipelines.get_pipeline_job(name=name)).end_time:
        assert time.monotonic() < deadline, found.state
        time.sleep(0.05)
    return found


def states(found):
    return {detail.task_name: detail.state.name for detail in found.job_detail.task_details}


@pytest.fixture(scope="module")
def promoted(vertex, spec):
    return submit(vertex, job(spec, config={"size": 4}, count=5, wanted=2), "promoted")


def test_submitted_spec_runs_with_its_custom_job_step_and_takes_the_right_branch(promoted):
    assert promoted.state == v1.PipelineState.PIPELINE_STATE_SUCCEEDED
    assert states(promoted) | {"promoted": ""} == {
        "promoted": "", "prepare": "SUCCEEDED", "train": "SUCCEEDED", "decide": "SUCCEEDED",
        "condition-branches-1": "SUCCEEDED", "condition-2": "SUCCEEDED", "note": "SUCCEEDED",
        "condition-3": "NOT_TRIGGERED",
    }  # fmt: skip


def test_artifacts_lie_in_the_bucket_under_their_uris(gcs, promoted):
    train = next(d for d in promoted.job_detail.task_details if d.task_name == "train")
    model = train.outputs["model"].artifacts[0]
    assert model.uri.startswith("gs://bucket/runs/123456789012/promoted/train_-")
    weights = gcs.client().bucket("bucket").blob(model.uri.removeprefix("gs://bucket/") + "/weights")
    assert weights.download_as_text() == "wwww"
    assert dict(model.metadata)["parent"].startswith("gs://bucket/runs/")


def test_custom_job_of_the_step_has_the_machine_strategy_and_log_that_were_asked(vertex, promoted):
    train = next(d for d in promoted.job_detail.task_details if d.task_name == "train")
    resources = dict(train.execution.metadata)["output:gcp_resources"]
    name = yaml.safe_load(resources)["resources"][0]["resourceUri"].split("/v1/")[1]
    custom = client(v1.JobServiceClient, vertex).get_custom_job(name=name)
    assert custom.job_spec.scheduling.strategy == v1.Scheduling.Strategy.SPOT
    assert custom.job_spec.worker_pool_specs[0].machine_spec.accelerator_type == v1.AcceleratorType.NVIDIA_L4
    assert "training on 5 letters" in vertex.logs.lines(name)


def test_lineage_joins_model_to_the_data_it_was_trained_on(vertex, promoted):
    metadata = client(v1.MetadataServiceClient, vertex)
    train = next(d for d in promoted.job_detail.task_details if d.task_name == "train")
    found = metadata.list_artifacts(
        request={
            "parent": f"{PARENT}/metadataStores/default",
            "filter": f'uri="{train.outputs["model"].artifacts[0].uri}"',
        }
    )
    (model,) = found
    graph = metadata.query_artifact_lineage_subgraph(artifact=model.name)
    assert {"system.Dataset", "system.Model"} <= {a.schema_title for a in graph.artifacts}
    assert {"prepare", "train", "decide"} <= {e.display_name for e in graph.executions}


def test_second_run_reuses_steps_whose_inputs_are_the_same(vertex, spec, promoted):
    again = submit(vertex, job(spec, config={"size": 4}, count=5, wanted=9), "again")
    assert states(again)["prepare"] == states(again)["train"] == "SKIPPED"
    assert states(again)["decide"] == "SUCCEEDED"
    assert states(again)["condition-2"] == "NOT_TRIGGERED"


def test_failing_step_fails_the_run_with_its_name_and_the_rest_is_not_triggered(vertex, spec):
    failed = submit(vertex, job(spec, config={"fail": True}), "failing")
    assert failed.state == v1.PipelineState.PIPELINE_STATE_FAILED
    assert "The failed tasks are: [train]" in failed.error.message
    train = next(d for d in failed.job_detail.task_details if d.task_name == "train")
    assert "non-zero status" in train.error.message
    assert len(train.pipeline_task_status) == 1, "one retry was asked"
    assert states(failed)["decide"] == "NOT_TRIGGERED"


def test_step_that_crashes_once_succeeds_on_its_retry(vertex, spec):
    vertex.fail("train", "crash")
    assert states(submit(vertex, job(spec, config={"size": 7}), "retried"))["train"] == "SUCCEEDED"


def test_cancel_ends_a_run_in_the_middle_of_a_step(vertex, spec):
    pipelines = client(v1.PipelineServiceClient, vertex)
    made = pipelines.create_pipeline_job(
        parent=PARENT, pipeline_job=job(spec, config={"seconds": 60}), pipeline_job_id="endless"
    )
    while "train" not in states(pipelines.get_pipeline_job(name=made.name)):
        time.sleep(0.05)
    started = time.monotonic()
    pipelines.cancel_pipeline_job(name=made.name)
    ended = finished(vertex, made.name)
    assert ended.state == v1.PipelineState.PIPELINE_STATE_CANCELLED
    assert states(ended)["train"] == "CANCELLED"
    assert time.monotonic() - started < 15


def test_high_level_client_submits_and_waits(vertex, gcs, tmp_path, monkeypatch):
    from google.cloud import aiplatform
    from google.cloud.aiplatform import pipeline_jobs
    from google.cloud.aiplatform.utils import resource_manager_utils

    for name, value in gcs.environment.items():
        monkeypatch.setenv(name, value)
    # submit() asks the resource manager for the project's number, at an address that no setting changes.
    monkeypatch.setattr(resource_manager_utils, "get_project_number", lambda *_, **__: "0")
    monkeypatch.setattr(pipeline_jobs, "_JOB_WAIT_TIME", 0.1)
    aiplatform.init(
        project="demo",
        location="us-central1",
        credentials=AnonymousCredentials(),
        api_endpoint=vertex.url,
        api_transport="rest",
        staging_bucket="gs://bucket",
    )
    run = aiplatform.PipelineJob(
        "tiny", str(tiny.compiled(tmp_path / "t.yaml")), parameter_values={"config": {"size": 1}, "count": 5}
    )
    run.submit()
    run.wait()
    assert run.state == v1.PipelineState.PIPELINE_STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"root": "gs://absent/runs"}, exceptions.BadRequest, "absent does not exist"),
        ({"root": "bucket/runs"}, exceptions.BadRequest, "not a Cloud Storage URI"),
        ({"count": "five"}, exceptions.BadRequest, "count must be of type NUMBER_INTEGER"),
        ({"count": 2.5}, exceptions.BadRequest, "count must be of type NUMBER_INTEGER"),
        ({"epochs": 1}, exceptions.BadRequest, "epochs is not found"),
    ],
)
def test_pipeline_job_that_the_service_refuses_is_refused(held, spec, change, error, words):
    with pytest.raises(error, match=words):
        client(v1.PipelineServiceClient, held).create_pipeline_job(
            parent=PARENT, pipeline_job=job(spec, **change), pipeline_job_id="refused"
        )


def test_missing_parameter_bad_id_bad_spec_and_unknown_fields_are_refused(held, spec):
    pipelines = client(v1.PipelineServiceClient, held)
    without = job(spec)
    without.runtime_config.parameter_values = {}
    with pytest.raises(exceptions.BadRequest, match="config is required"):
        pipelines.create_pipeline_job(parent=PARENT, pipeline_job=without, pipeline_job_id="a")
    with pytest.raises(exceptions.BadRequest, match="pipeline_job_id"):
        pipelines.create_pipeline_job(parent=PARENT, pipeline_job=job(spec), pipeline_job_id="Not_An_Id")
    with pytest.raises(exceptions.BadRequest, match="cannot be parsed"):
        pipelines.create_pipeline_job(parent=PARENT, pipeline_job=job({**spec, "steps": {}}), pipeline_job_id="a")
    code, body = held.answer("POST", f"/v1/{PARENT}/pipelineJobs", b'{"displayNam": "x"}')
    assert code == 400
    assert b"displayNam" in body


def test_same_job_id_twice_is_a_conflict(held, spec):
    pipelines = client(v1.PipelineServiceClient, held)
    pipelines.create_pipeline_job(parent=PARENT, pipeline_job=job(spec), pipeline_job_id="once")
    with pytest.raises(exceptions.Conflict):
        pipelines.create_pipeline_job(parent=PARENT, pipeline_job=job(spec), pipeline_job_id="once")


def test_jobs_are_listed_newest_first_in_pages_and_by_filter(held, spec):
    pipelines = client(v1.PipelineServiceClient, held)
    for number in range(5):
        made = job(spec)
        made.labels = {"number": str(number)}
        pipelines.create_pipeline_job(parent=PARENT, pipeline_job=made, pipeline_job_id=f"job-{number}")
    listed = [j.labels["number"] for j in pipelines.list_pipeline_jobs(request={"parent": PARENT, "page_size": 2})]
    assert listed == ["4", "3", "2", "1", "0"]
    (one,) = pipelines.list_pipeline_jobs(request={"parent": PARENT, "filter": 'labels.number="3"'})
    assert one.name.endswith("/job-3")
    assert one.name.startswith("projects/123456789012/"), "the service answers with project numbers"


@pytest.mark.parametrize(
    ("machine", "accelerator", "count"),
    [("e2-standard-4", "NVIDIA_TESLA_T4", 1), ("n1-standard-4", "NVIDIA_L4", 1), ("g2-standard-24", "NVIDIA_L4", 1),
     ("g2-standard-8", "ACCELERATOR_TYPE_UNSPECIFIED", 0), ("n9-standard-4", "ACCELERATOR_TYPE_UNSPECIFIED", 0)],
)  # fmt: skip
def test_machine_and_accelerator_that_do_not_go_together_are_refused(held, machine, accelerator, count):
    pool = {"machine_spec": {"machine_type": machine, "accelerator_type": accelerator, "accelerator_count": count},
            "container_spec": {"image_uri": "x"}, "replica_count": 1}  # fmt: skip
    with pytest.raises(exceptions.BadRequest, match=machine):
        client(v1.JobServiceClient, held).create_custom_job(
            parent=PARENT, custom_job={"display_name": "x", "job_spec": {"worker_pool_specs": [pool]}}
        )


def schedule(spec, cron="CRON_TZ=Europe/Berlin 0 3 * * 1"):
    return v1.Schedule(
        display_name="nightly",
        cron=cron,
        max_concurrent_run_count=1,
        create_pipeline_job_request={"parent": PARENT, "pipeline_job": job(spec)},
    )


def test_schedule_lives_through_pause_resume_update_and_delete_and_fires_only_while_active(held, spec):
    schedules = client(v1.ScheduleServiceClient, held)
    made = schedules.create_schedule(parent=PARENT, schedule=schedule(spec))
    assert made.next_run_time.weekday() == 0
    schedules.pause_schedule(name=made.name)
    with pytest.raises(Exception, match="cannot start"):
        held.schedules.fire("nightly")
    schedules.resume_schedule(name=made.name)
    fired = held.schedules.fire("nightly")
    assert client(v1.PipelineServiceClient, held).get_pipeline_job(name=fired).schedule_name == made.name
    changed = schedules.update_schedule(
        schedule={"name": made.name, "cron": "0 5 * * *"}, update_mask={"paths": ["cron"]}
    )
    assert (changed.cron, changed.name) == ("0 5 * * *", made.name)
    schedules.delete_schedule(name=made.name).result()
    assert list(schedules.list_schedules(parent=PARENT)) == []


@pytest.mark.parametrize("cron", ["0 3 * *", "61 3 * * *", "CRON_TZ=Europe/Berln 0 3 * * *", "every day"])
def test_cron_typo_is_refused(held, spec, cron):
    with pytest.raises(exceptions.BadRequest, match=r"cron|zone"):
        client(v1.ScheduleServiceClient, held).create_schedule(parent=PARENT, schedule=schedule(spec, cron))


def test_registry_keeps_versions_and_an_alias_belongs_to_one_of_them(held):
    models, uploaded = client(v1.ModelServiceClient, held), []
    held.operations.pending = 1  # a long-running operation that is polled once
    for number in range(2):
        model = v1.Model(
            display_name="digits",
            artifact_uri=f"gs://bucket/models/{number}",
            container_spec={"image_uri": "image:1"},
            version_aliases=["champion"],
        )
        request = {"parent": PARENT, "model": model}
        request |= {"parent_model": uploaded[0].model} if uploaded else {"model_id": "digits"}
        uploaded.append(models.upload_model(request=request).result(timeout=20))
    name = uploaded[0].model
    assert [u.model_version_id for u in uploaded] == ["1", "2"]
    assert models.get_model(name=f"{name}@champion").version_id == "2"
    models.merge_version_aliases(name=f"{name}@1", version_aliases=["champion"])
    assert {m.version_id: list(m.version_aliases) for m in models.list_model_versions(name=name)} == {
        "1": ["default", "champion"], "2": [],
    }  # fmt: skip
    with pytest.raises(exceptions.BadRequest, match="alias"):
        models.merge_version_aliases(name=f"{name}@1", version_aliases=["Champion!"])


def test_model_without_a_container_or_with_a_local_artifact_is_refused(held):
    models = client(v1.ModelServiceClient, held)
    for model, words in (
        (v1.Model(display_name="m"), "image_uri is required"),
        (v1.Model(display_name="m", container_spec={"image_uri": "i"}, artifact_uri="/tmp/m"), "Cloud Storage URI"),
    ):
        with pytest.raises(exceptions.BadRequest, match=words):
            models.upload_model(parent=PARENT, model=model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"display_name": "x" * 129}, "display_name has 129 characters, at most 128"),
        ({"network": "projects/demo/global/networks/net"}, "the project must be its number"),
    ],
)
def test_what_the_protos_docstrings_do_not_allow_is_refused(held, spec, change, words):
    made = job(spec)
    for name, value in change.items():
        setattr(made, name, value)
    with pytest.raises(exceptions.BadRequest, match=words):
        client(v1.PipelineServiceClient, held).create_pipeline_job(
            parent=PARENT, pipeline_job=made, pipeline_job_id="refused"
        )


@pytest.mark.parametrize(("length", "allowed"), [(127, True), (128, False)])
def test_an_id_of_a_run_is_shorter_than_128_characters_and_ours_are_too(held, spec, length, allowed):
    identity = "i" * length
    assert bool(RUN_ID.fullmatch(identity)) is allowed
    pipelines = client(v1.PipelineServiceClient, held)
    if allowed:
        pipelines.create_pipeline_job(parent=PARENT, pipeline_job=job(spec), pipeline_job_id=identity)
    else:
        with pytest.raises(exceptions.BadRequest, match="at most 127"):
            pipelines.create_pipeline_job(parent=PARENT, pipeline_job=job(spec), pipeline_job_id=identity)


def test_a_step_is_cached_by_the_names_of_its_input_artifacts_and_not_by_what_they_are():
    def key(name, uri, **metadata):
        step = Step.__new__(Step)
        step.runner = SimpleNamespace(order={"spec": {"pipelineInfo": {"name": "p"}}})
        container = SimpleNamespace(image="i", command=["c"], args=[], env=[])
        step.executor = SimpleNamespace(container=container)
        step.arguments = {"size": 1, "model": dsl.Model(name=name, uri=uri, metadata=metadata)}
        return step.cache_key()

    assert key("a", "gs://b/1") == key("a", "gs://b/2", seed=3)
    assert key("a", "gs://b/1") != key("b", "gs://b/1")


def test_a_job_without_quota_is_queued_until_another_has_ended(held):
    jobs = client(v1.JobServiceClient, held)
    machine = {"machine_type": "g2-standard-8", "accelerator_type": "NVIDIA_L4", "accelerator_count": 1}
    pool = {"machine_spec": machine, "container_spec": {"image_uri": "x"}, "replica_count": 1}
    metric = "aiplatform.googleapis.com/custom_model_training_nvidia_l4_gpus"
    held.platform.quota["us-central1", metric] = 1
    first, second = (
        jobs.create_custom_job(
            parent=PARENT, custom_job={"display_name": "x", "job_spec": {"worker_pool_specs": [pool]}}
        )
        for _ in range(2)
    )
    assert (first.state.name, second.state.name) == ("JOB_STATE_PENDING", "JOB_STATE_QUEUED")
    assert jobs.get_custom_job(name=second.name).state == v1.JobState.JOB_STATE_QUEUED
    jobs.cancel_custom_job(name=first.name)
    assert jobs.get_custom_job(name=second.name).state == v1.JobState.JOB_STATE_PENDING
