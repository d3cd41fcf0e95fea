"""The probe: one small run that reports what only the service knows, and the emulator that can be set to it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from components.probe import observe
from pipelines.machines import load_machines
from pipelines.settings import load_settings
from pipelines.vertex.probe import MOST, SECONDS, prepare
from tests.pipelines.vertex.conftest import Cloud


def test_no_step_can_outlive_its_limit_and_all_cost_less_than_a_dollar(cloud: Cloud) -> None:
    submission, estimate = prepare(cloud.vertex, load_settings(), "t4")
    rows = load_machines()
    t4, cpu = rows["t4"].price(), rows["cpu"].price()
    assert t4
    assert cpu
    assert estimate.usd == pytest.approx(0.03 + (t4 + 2 * cpu) * (SECONDS / 3600 + 0.1))
    assert estimate.usd < MOST == 1
    components = submission.spec["components"]
    for step in ("look", "exit-2"):
        parameters = components[f"comp-{step}"]["inputDefinitions"]["parameters"]
        assert parameters["timeout"]["defaultValue"] == "900s"
        assert len(parameters["worker_pool_specs"]["defaultValue"]) == 1
    (container,) = (
        executor["container"]
        for name, executor in submission.spec["deploymentSpec"]["executors"].items()
        if name == "exec-step"
    )
    assert {"name": "TEXTDIFFUSION_STEP_SECONDS", "value": "900"} in container["env"]
    assert not any("retryPolicy" in task for task in submission.spec["root"]["dag"]["tasks"].values())


def test_a_machine_that_could_cost_more_is_refused(cloud: Cloud, command: Any) -> None:
    before = len(cloud.server.pipelines.jobs)
    code, _, err = command("probe", "--machine", "h100")
    assert code == 2
    assert err.startswith("error: --machine h100: the probe could cost about 3.98 USD")
    assert (len(cloud.server.pipelines.jobs), err.count("\n")) == (before, 1)


def test_dry_run_says_the_most_it_can_cost(cloud: Cloud, command: Any) -> None:
    code, out, _ = command("probe", "--dry-run")
    assert (code, out.strip()) == (0, "at most 0.36 USD")
    assert not Path("probe.json").exists()


def test_the_probe_reports_and_the_emulator_can_be_set_to_what_it_found(
    cloud: Cloud, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud.server, "begun", 3)
    code, out, err = command("probe", "--interval", "0.2")
    assert code == 0, err
    found = json.loads(Path("probe.json").read_text())
    assert found["exit_2"] == {"state": "failed", "begun": 3}
    for place in ("look", "step"):
        facts = found[place]
        assert facts["user"]["uid"] == (10001 if os.getuid() == 0 else os.getuid())
        assert facts["folder"]["write"] == "ok"
        assert {"rename a folder", "fsync a folder", "hard link", "mode of a folder"} <= set(facts["folder"])
        assert {"driver", "cuda", "architectures", "usable"} <= set(facts["gpu"])
        assert facts["trial_metrics"].keys() == {"file", "folder", "writable"}
    assert "exit_2: begun" in out
    assert "look: gpu: driver" in out
    assert command("probe")[0] == 2, "probe.json is there already, and is not overwritten"

    monkeypatch.setattr(cloud.server, "begun", None)
    cloud.server.set_to(found)
    code, _, err = command("probe", "--interval", "0.2", "--out", "again.json")
    assert code == 0, err
    assert json.loads(Path("again.json").read_text())["exit_2"] == found["exit_2"]


def test_operations_that_are_refused_are_named_by_their_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "rename", refused)
    folder = observe(tmp_path)["folder"]
    assert (folder["rename a folder"], folder["write"]) == ("EMFILE", "ok")
