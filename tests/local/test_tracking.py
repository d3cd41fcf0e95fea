"""Trackers are told all that a run knows, once; without their clients and servers it is one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import storage
from core.errors import UserError
from core.images import pictures
from factory.registry import Registry
from factory.run_folder import Run, new_run
from local import tracking
from textdiffusion.cli import app as cli

ROWS = [
    {"examples": 32, "seconds": 0.4, "validation": {"loss": 1.4, "loss/sigma=0.1": 1.0}},
    {"examples": 48, "loss": 1.5, "lr": 0.001, "grad_norm": 2.5},
    {"examples": 64, "loss": 1.2, "lr": 0.001, "grad_norm": float("nan")},
]
PNG = pictures.png(np.zeros((2, 2), np.uint8))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run whose model was registered and promoted; registry/ beside runs/."""
    config = {"train": {"seed": 3, "minutes": None}, "sample": {"steps": 16}}
    steps = ["train", "sample", "evaluate", "register"]
    made = new_run(tmp_path / "runs", "images-training", "tiny", steps, {"config": config, "code_version": "abc"})
    for artifact, step in (("model", "train"), ("samples", "sample"), ("registered", "register")):
        entry = {"path": f"steps/{step}", "uri": "", "type": "", "metadata": {}}
        made.update(step, state="succeeded", artifacts={artifact: entry})
    storage.write_json_lines(made.folder / "steps/train/train_log.jsonl", [])
    (made.folder / "steps/train/train_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:2]))
    storage.write_bytes(made.folder / "steps/sample/grid.png", PNG)
    metrics = {"frechet_distance": {"value": 0.5, "floor": 0.2, "n": 1000, "se": 0.01}}
    storage.write_json(made.folder / "metrics.json", metrics)
    storage.write_bytes(made.folder / "steps/train/weights", b"w")
    version = Registry(tmp_path / "registry").register(
        "tiny", {"model": made.folder / "steps/train"}, metrics=metrics, evaluation_key="k", weights_sha256="w",
        lineage={"run": made.id},
    )  # fmt: skip
    Registry(tmp_path / "registry").promote("tiny", version.version, "better by far")
    storage.write_json(made.folder / "steps/register/version.json", {"model": "tiny", "version": version.version})
    made.save(status="succeeded", gate={"decision": "promote", "reason": "frechet_distance 0.5 < 0.6"})
    return made


def test_all_is_told_that_a_run_knows(run: Run, tmp_path: Path) -> None:
    told = tracking.told(run, str(tmp_path / "registry"))
    assert told.settings == {"train.seed": "3", "sample.steps": "16"}
    assert told.metrics == {
        "frechet_distance": 0.5,
        "frechet_distance.floor": 0.2,
        "frechet_distance.n": 1000,
        "frechet_distance.se": 0.01,
    }
    assert told.curves == [
        (32, {"train/validation/loss": 1.4, "train/validation/loss/sigma 0.1": 1.0}),
        (48, {"train/loss": 1.5, "train/lr": 0.001, "train/grad_norm": 2.5}),
    ]
    assert (told.tags["gate"], told.tags["registered"], told.tags["code_version"]) == ("promote", "tiny@1", "abc")
    assert "promote: better by far" in told.tags["history"]
    assert {file.name for file in told.files} == {"metrics.json", "grid.png"}


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


@pytest.mark.parametrize(("tracker", "package"), [("mlflow", "mlflow-skinny"), ("wandb", "wandb")])
def test_a_missing_client_is_one_line_and_costs_a_run_nothing(
    tracker: str, package: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, tracker, None)
    assert command("track", "latest" if (tmp_path / "runs/latest").exists() else run.id, "--to", tracker) == 2
    assert capsys.readouterr().err == f"error: {tracker} is not installed: pip install {package}\n"
    tracking.tell_all(run, (tracker,), "registry")
    assert f"tell it again: textdiffusion track {run.id} --to {tracker}" in caplog.text


def test_a_run_that_goes_on_is_not_told(run: Run, tmp_path: Path) -> None:
    run.save(status="running")
    with pytest.raises(UserError, match="has not ended; trackers are told of finished runs"):
        tracking.tell(run, "mlflow", str(tmp_path / "registry"))


@pytest.fixture
def mlflow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tracking server; the whole of mlflow is needed for it, the skinny one for the client."""
    pytest.importorskip("mlflow", reason="MLflow cannot be locked beside our pyarrow: docs/how-to/track.md")
    pytest.importorskip("mlflow.server.fastapi_app", reason="the server comes with the whole of mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = (
        f"mlflow server --port {port} --backend-store-uri sqlite:///{tmp_path}/db --artifacts-destination {tmp_path}/a"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen(
        [sys.executable, "-m", *command.split()], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).read()
                break
            except OSError:
                assert time.monotonic() < end
                assert server.poll() is None
                time.sleep(0.3)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # it has workers and job runners of its own
        server.wait()


def test_mlflow_has_the_run_once_however_often_it_is_told(run: Run, mlflow_server: str, tmp_path: Path) -> None:
    import mlflow

    for _ in range(2):
        place = tracking.tell(run, "mlflow", str(tmp_path / "registry"))
    assert mlflow_server in place
    client: Any = mlflow.MlflowClient()
    (there,) = client.search_runs([client.get_experiment_by_name("textdiffusion").experiment_id])
    assert there.info.status == "FINISHED"
    assert there.data.params["train.seed"] == "3"
    assert there.data.metrics["frechet_distance.floor"] == 0.2
    assert there.data.tags["gate"] == "promote"
    curve = client.get_metric_history(there.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(48, 1.5)]
    assert {file.path for file in client.list_artifacts(there.info.run_id)} == {"metrics.json", "grid.png"}


def test_mlflow_that_is_not_reached_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow cannot be locked beside our pyarrow: docs/how-to/track.md")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"^mlflow: ") as refused:
        tracking.tell(run, "mlflow", str(tmp_path / "registry"))
    assert "\n" not in str(refused.value)


def test_wandb_offline_leaves_a_folder_to_sync(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="W&B is not locked with the project: docs/how-to/track.md")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    place = Path(tracking.tell(run, "wandb", str(tmp_path / "registry")))
    (written,) = place.parent.glob("*.wandb")
    wanted = (b"frechet_distance.floor", b"train/loss", b"train.seed", b"better by far")
    end = time.monotonic() + 60  # a process of the client's own writes, on a busy machine after `finish`
    while any(one not in written.read_bytes() for one in wanted):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_tensorboard_shows_all_runs_of_the_folder_at_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from torch.utils.tensorboard import SummaryWriter

    for name in ("images-training/a-1", "text-training/b-2"):
        with SummaryWriter(str(tmp_path / name / "steps/train/tensorboard")) as writer:
            writer.add_scalar("loss", 1.5, 48)
    shown = EventMultiplexer()
    shown.AddRunsFromDirectory(str(tmp_path))
    shown.Reload()
    runs = [f"{name}/steps/train/tensorboard" for name in ("images-training/a-1", "text-training/b-2")]
    assert sorted(shown.Runs()) == runs
    for run in runs:
        (point,) = shown.Tensors(run, "loss")
        assert (point.step, float(point.tensor_proto.float_val[0])) == (48, 1.5)
