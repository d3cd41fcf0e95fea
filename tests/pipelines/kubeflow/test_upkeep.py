"""Where artifacts come from, and what of old runs may go."""

from __future__ import annotations

import json
import struct

import pytest

from core.errors import UserError
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.metadata import stated
from pipelines.settings import load_settings
from tests.pipelines.kubeflow.test_runs import deploy, monitor, states


@pytest.fixture
def pages(cluster, monkeypatch):
    """The installation by its pages, which hand requests on to ML Metadata."""
    monkeypatch.setattr(cluster.server, "front_end", True)
    return cluster


def ended(command, *settings):
    run = deploy(command, *(part for one in settings for part in ("--set", one)))
    assert monitor(command, run, "--follow")[0] == 0
    return run


def test_lineage_of_an_artifact_is_that_of_the_downloaded_run(pages, command, tmp_path):
    run = ended(command, "train.learning_rate=0.41", "data.limit=41")  # all steps its own, none from the cache
    code, out, err = command("lineage", f"{run}/sample", "--json")
    assert code == 0, err
    tree = json.loads(out)
    assert (tree["artifact"], tree["run"], tree["step"], tree["code_version"]) == ("samples", run, "sample", "abc123")
    model = next(part for part in tree["parents"] if part["artifact"] == "model")
    assert [part["artifact"] for part in model["parents"]] == ["dataset"]
    assert json.loads(command("lineage", tree["uri"], "--json")[1]) == tree
    assert "code abc123" in command("show", run)[1]
    rows = {row["check"]: row["state"] for row in json.loads(command("doctor", "--cloud", "--json")[1])}
    assert rows["ML Metadata"] == "ok"
    assert command("download", run, str(tmp_path / "runs" / "images" / run))[0] == 0
    pages.server.metadata.artifacts.pop(tree["uri"])
    assert json.loads(command("lineage", f"{run}/samples", "--json")[1]) == tree, "from the folder"
    code, _, err = command("lineage", tree["uri"])
    assert (code, err) == (2, f"error: {tree['uri']}: ML Metadata has no artifact at {tree['uri']}\n")
    code, _, err = command("lineage", f"{run}/nothing")
    assert (code, err.count("\n"), "has no artifact 'nothing'; there are: " in err) == (2, 1, True)


def test_an_address_without_ml_metadata_says_which_has_it(cluster, command):
    run = ended(command, "train.learning_rate=0.42")
    for arguments in (("lineage", f"{run}/model"), ("gc",)):
        code, _, err = command(*arguments)
        assert (code, err.count("\n"), "set kubeflow_host to the pages, svc/ml-pipeline-ui" in err) == (2, 1, True), err


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (struct.pack(">BI", 0, 9) + b"half", "its answer broke off"),
        (struct.pack(">BI", 0, 2) + b"\xff\xff", "its answer is no message"),
        (struct.pack(">BI", 128, 38) + b"grpc-status:7\r\ngrpc-message: not yours", "refused with status 7: not yours"),
        (b"\0", "its answer"),
    ],
)
def test_what_ml_metadata_should_not_answer_is_one_line(pages, monkeypatch, answer, words):
    monkeypatch.setattr(pages.server.metadata, "answer", lambda method, content: answer)
    with pytest.raises(UserError, match=words):
        stated(Cluster(load_settings()), ["gs://demo-bucket/x"])


def listed(command, days="0"):
    code, out, err = command("gc", "--keep-days", days, "--json")
    assert code == 0, err
    return {row["run"]: row for row in json.loads(out)}


def test_old_runs_go_with_their_cache_and_what_is_referred_to_stays(pages, command, monkeypatch):
    champion = ended(command, "train.learning_rate=0.31", "job=kept", "data.limit=17")
    going = ended(command, "train.learning_rate=0.01", "job=kept", "data.limit=18")
    rows = listed(command)
    assert rows[champion]["kept_because"] == "is where a registered version comes from"
    assert (rows[going]["kept_because"], rows[going]["files"] > 5, rows[going]["pipeline"]) == (None, True, "images")
    assert listed(command, "30")[going]["kept_because"] == "is younger than 30 days"
    with monkeypatch.context() as other:
        other.setenv("TEXTDIFFUSION_REGISTRY", "gs://demo-bucket/other")
        assert listed(command)[going]["kept_because"] == "registers in gs://demo-bucket/registry"
    user = ended(command, "train.learning_rate=0.32", "job=uses", "data.limit=18")
    assert states(command, user)["prepare-data"] == "cached"
    assert listed(command)[going]["kept_because"] == "made what a later run uses"
    identity = pages.run(going).run_id
    assert command("gc", "--keep-days", "0", "--remove")[0] == 0
    assert pages.run(going), "nothing that is used goes"
    for name in pages.gcs.names("demo-bucket", "registry/uses/"):
        pages.gcs.client().bucket("demo-bucket").blob(name).delete()
    with monkeypatch.context() as cut:
        cut.setattr("core.storage.remove", lambda uri: (_ for _ in ()).throw(UserError("cut")))
        assert command("gc", "--keep-days", "0", "--remove")[0] == 2
    for _ in range(2):  # what was cut is finished, then there is nothing
        assert command("gc", "--keep-days", "0", "--remove")[0] == 0
    assert pages.gcs.names("demo-bucket", f"v2/artifacts/images/{identity}/") == []
    assert pages.gcs.names("demo-bucket", "registry/.gc/") == []
    assert going not in listed(command)
    again = ended(command, "train.learning_rate=0.01", "job=kept", "data.limit=18")
    assert states(command, again)["prepare-data"] == "succeeded", "the cache must not serve what is gone"
    assert listed(command)[champion]["kept_because"], "the champion's run is there"


def test_checkpoints_stay_while_they_are_young_or_a_run_is_going_on(pages, command):
    pages.gcs.put("demo-bucket", "registry/.work/0123/manifest-00000001.json", b"12345")
    assert listed(command, "30")["work/0123"]["kept_because"] == "is younger than 30 days"
    run = deploy(command, "--set", "train.seed=99", "--set", "train.learning_rate=0.33")
    assert listed(command)["work/0123"]["kept_because"] == "a run is going on"
    code, _, err = command("cancel", run)
    assert code == 0, err
    assert monitor(command, run, "--follow")[0] == 130
    assert listed(command)["work/0123"]["kept_because"] is None
