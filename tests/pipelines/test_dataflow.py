"""Apache Beam in pipelines: what is compiled for it, and jobs that Google's own client sends to Dataflow."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.config import validate
from core.errors import UserError
from core.images.config import ImageData
from core.images.data import prepare_data
from core.images.dataset import ImageDataset
from core.processes import beam, interpreter
from factory.job import AnyJob
from pipelines import costs
from pipelines.checks import check_spec, executors, read_spec
from pipelines.compile import TARGETS, compile_job
from pipelines.dataflow import Workers, beam_options, workers_of
from pipelines.machines import load_machines
from pipelines.settings import Settings
from tests.core.images.test_data import class_folders
from tests.fakes.dataflow import DataflowServer
from tests.fakes.gcs import GcsServer
from tests.pipelines.test_compile import IMAGE, IMAGES, job

pytest.importorskip("apache_beam")

PLACE = {"project": "demo", "region": "us-central1", "bucket": "demo-bucket"}
BEAM = {"source": "folder", "data_dir": "gs://demo-bucket/in", "shards": {"engine": "beam"}}


def beamed(**data: Any) -> AnyJob:
    return job({**IMAGES, "data": {**BEAM, **data}})


def settings(**more: Any) -> Settings:
    return validate(Settings, {**PLACE, **more}, "settings")


@pytest.mark.parametrize("target", TARGETS)
def test_only_the_step_that_runs_beam_has_its_image_and_its_options(target: Any) -> None:
    options = beam_options(beamed(), settings(dataflow={"workers": 3}), IMAGE)
    text = compile_job(beamed(), target, image=IMAGE, beam=options)
    assert check_spec(text, beamed()) == []
    for step, container in executors(read_spec(text)[0]):
        variables = {item["name"]: item["value"] for item in container.get("env", [])}
        own = step == "prepare-data"
        assert container["image"].endswith("-beam") == own, step
        assert variables.get(beam.OPTIONS) == (options if own else None)
    assert "-beam" not in compile_job(job(IMAGES), target, image=IMAGE)
    assert "value: '{}'" in compile_job(beamed(), target, image=IMAGE)  # on the step's own machine


def test_settings_become_the_options_of_dataflow() -> None:
    given = settings(
        service_account="pipelines@demo.iam.gserviceaccount.com", labels={"team": "a"}, encryption_key="k",
        dataflow={"machine_type": "e2-standard-8", "workers": 40, "subnetwork": "regions/r/subnetworks/s",
                  "public_ips": False},
    )  # fmt: skip
    assert json.loads(str(beam_options(beamed(), given, "r/t:1"))) == {
        "runner": "DataflowRunner", "project": "demo", "region": "us-central1",
        "temp_location": "gs://demo-bucket/dataflow/temp", "staging_location": "gs://demo-bucket/dataflow/staging",
        "service_account_email": "pipelines@demo.iam.gserviceaccount.com", "sdk_container_image": "r/t:1-beam",
        "machine_type": "e2-standard-8", "max_num_workers": 40, "subnetwork": "regions/r/subnetworks/s",
        "no_use_public_ips": True, "dataflow_kms_key": "k", "labels": ["team=a"],
    }  # fmt: skip
    assert beam_options(beamed(), settings(), "r/t:1") == "{}"
    assert beam_options(job(IMAGES), given, "r/t:1") is None
    with pytest.raises(UserError, match="project is not set"):
        beam_options(beamed(), Settings(dataflow=given.dataflow, bucket="b"), "r/t:1")


@pytest.mark.parametrize(("machine", "each"), [("n1-standard-4", 4 * 0.056 + 16 * 0.003557), ("m1-ultramem-40", None)])
def test_machines_of_dataflow_are_in_the_estimate_at_most(machine: str, each: float | None) -> None:
    rows, steps, rates = load_machines(), {}, {}
    for name, given in (("own", {}), ("dataflow", {"dataflow": {"machine_type": machine, "workers": 3}})):
        one = beamed(**({} if name == "own" else {"shards": {"engine": "beam", "workers": 5}}))
        options = beam_options(one, settings(**given), IMAGE)
        spec = read_spec(compile_job(one, "vertex", image=IMAGE, beam=options))[0]
        found = costs.estimate(spec, one, rows)
        steps[name] = next(step for step in found.steps if step.step == "prepare-data")
        rates[name] = costs.hourly(spec, rows).get("prepare-data")
    own, more = steps["own"], steps["dataflow"]
    assert (own.machine, own.bound) == ("e2-standard-4", False)
    assert (more.machine, more.bound) == (f"e2-standard-4 + 5 x {machine} of Dataflow", True)
    if each is None:
        assert (more.usd, rates["dataflow"]) == (None, None)
    else:
        assert more.usd == pytest.approx(own.usd + 5 * each * own.hours)
        assert rates["dataflow"] == pytest.approx(rates["own"] + 5 * each)
    assert workers_of(spec) == {"prepare-data": Workers(5, machine)}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    place = class_folders(tmp_path_factory.mktemp("files") / "in", each=20)
    with GcsServer() as gcs:
        gcs.create_bucket("demo-bucket")
        for path in place.rglob("*.png"):
            gcs.put("demo-bucket", f"in/{path.relative_to(place).as_posix()}", path.read_bytes())
        yield gcs


def told(bucket: GcsServer, server: DataflowServer, patch: pytest.MonkeyPatch) -> None:
    for name, value in bucket.environment.items():
        patch.setenv(name, value)
    given = settings(dataflow={"workers": 3}, service_account="pipelines@demo.iam.gserviceaccount.com")
    patch.setenv(beam.OPTIONS, str(beam_options(beamed(), given, IMAGE, server.url)))


def data(**shards: Any) -> ImageData:
    return ImageData.model_validate({**BEAM, "shards": {"above_gb": 0, "mb": 8 * 64 / 1e6, "engine": "beam", **shards}})


def test_a_job_of_dataflow_prepares_what_one_process_does(
    bucket: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client sends it and stages it; what the service does not get right is refused by its message types."""
    with DataflowServer() as server:
        told(bucket, server, monkeypatch)
        prepare_data(data(), tmp_path / "far", "gs://demo-bucket/shards")
    [sent] = server.jobs
    assert server.states == ["JOB_STATE_DONE"]
    assert sent.environment.service_account_email == "pipelines@demo.iam.gserviceaccount.com"
    [pool] = sent.environment.worker_pools
    assert (pool.machine_type, pool.autoscaling_settings.max_num_workers) == ("n1-standard-4", 3)
    assert {image.container_image for image in pool.sdk_harness_container_images} == {f"{IMAGE}-beam"}
    monkeypatch.delenv(beam.OPTIONS)
    prepare_data(data(engine="processes", workers=1), tmp_path / "near", "gs://demo-bucket/other")
    far, near = (ImageDataset.open(tmp_path / name) for name in ("far", "near"))
    assert far.content_sha256 == near.content_sha256
    assert far._index == near._index
    names = {name.rpartition("/")[2] for name in bucket.names("demo-bucket", "shards/")}
    assert names == {shard.name for shards in far._index.splits.values() for shard in shards}


def test_what_dataflow_cannot_reach_or_refuses_is_one_line(
    bucket: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with DataflowServer(refuses="dataflow.jobs.create denied") as server:
        told(bucket, server, monkeypatch)
        with pytest.raises(UserError, match=r"data.shards.place: Dataflow's machines reach no"):
            prepare_data(data(), tmp_path / "out")
        local = data().model_copy(update={"data_dir": str(class_folders(tmp_path / "in"))})
        with pytest.raises(UserError, match=r"data.data_dir: Dataflow's machines read images from a prefix"):
            prepare_data(local, tmp_path / "out", "gs://demo-bucket/refused")
        with pytest.raises(UserError, match=r"Dataflow: .*dataflow.jobs.create denied"):
            prepare_data(data(), tmp_path / "out", "gs://demo-bucket/refused")
    assert "Traceback" not in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_step_that_is_ended_cancels_its_job(
    bucket: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DataflowServer(runs=False) as server:
        told(bucket, server, monkeypatch)
        program = (
            "from pathlib import Path; from core.images.data import prepare_data;"
            "from tests.pipelines.test_dataflow import data;"
            f"prepare_data(data(), Path({str(tmp_path / 'out')!r}), 'gs://demo-bucket/ended')"
        )
        step = subprocess.Popen([sys.executable, "-c", program], env=interpreter.environment(os.environ))
        try:
            assert server.begun.wait(200)
        finally:
            step.send_signal(signal.SIGTERM)
            step.wait()
        waits = time.monotonic() + 100
        while server.states != ["JOB_STATE_CANCELLED"]:
            assert time.monotonic() < waits
            time.sleep(0.2)
