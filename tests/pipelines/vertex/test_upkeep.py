"""Download, retention, doctor and the mirror of the registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import UserError
from pipelines.vertex.downloads import crc32c, fetch, fetch_tree
from pipelines.vertex.retention import candidates, remove
from tests.pipelines.vertex.conftest import IMAGE
from tests.pipelines.vertex.test_runs import deploy, monitor, states


@pytest.fixture
def big(cloud):
    """An object of a mebibyte whose bytes are all different from their neighbours."""
    content = bytes(i % 251 for i in range(1 << 20))
    blob = cloud.gcs.client().bucket("demo-bucket").blob("files/big.bin")
    blob.upload_from_string(content)
    return blob, content


def test_interrupted_download_is_picked_up_where_it_stopped(cloud, big, tmp_path, monkeypatch):
    _, content = big
    blob = cloud.vertex.buckets.bucket("demo-bucket").get_blob("files/big.bin")
    (tmp_path / f".big.bin.{blob.generation}.part").write_bytes(content[:700_000])
    started = []
    original = type(blob).download_to_file
    monkeypatch.setattr(
        type(blob), "download_to_file", lambda self, *a, **k: started.append(k["start"]) or original(self, *a, **k)
    )
    fetch(blob, tmp_path / "big.bin")
    assert (tmp_path / "big.bin").read_bytes() == content
    assert started == [700_000]
    fetch(blob, tmp_path / "big.bin")
    assert started == [700_000], "a whole file is not read again"


def test_damaged_part_is_read_anew_and_a_damaged_object_is_refused(cloud, big, tmp_path):
    _, content = big
    blob = cloud.vertex.buckets.bucket("demo-bucket").get_blob("files/big.bin")
    (tmp_path / f".big.bin.{blob.generation}.part").write_bytes(b"x" * 1000)
    fetch(blob, tmp_path / "big.bin")
    assert (tmp_path / "big.bin").read_bytes() == content

    class Lying:
        def __getattr__(self, name):
            return "AAAAAA==" if name == "crc32c" else getattr(blob, name)

    with pytest.raises(UserError, match="did not arrive whole"):
        fetch(Lying(), tmp_path / "other.bin")
    assert not (tmp_path / "other.bin").exists()


def test_checksum_is_the_one_that_the_standard_gives(tmp_path):
    (tmp_path / "digits").write_bytes(b"123456789")
    assert crc32c(tmp_path / "digits") == "4waSgw=="  # CRC-32C check value 0xE3069283


@pytest.mark.parametrize("name", ["../../out", "/{tmp}/out", "a\\..\\..\\out", "a/\n"])
def test_object_whose_name_leads_out_of_the_folder_is_refused(cloud, tmp_path, name):
    bucket, place = cloud.gcs.client().bucket("demo-bucket"), f"evil-{len(name)}"
    bucket.blob(f"{place}/first").upload_from_string("x")
    bucket.blob(f"{place}/{name.format(tmp=str(tmp_path).lstrip('/'))}").upload_from_string("x")
    with pytest.raises(UserError, match="refuses the name"):
        fetch_tree(cloud.vertex, f"gs://demo-bucket/{place}", tmp_path / "in")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "in").exists()
    with pytest.raises(UserError, match="nothing there"):
        fetch_tree(cloud.vertex, "gs://demo-bucket/absent", tmp_path / "in")


def test_downloaded_run_is_read_by_the_commands_for_local_runs(cloud, command, tmp_path):
    run = deploy(command, "--set", "train.learning_rate=0.5")
    assert monitor(command, run, "--follow")[0] == 0
    code, _, err = command("download", run, str(tmp_path / "runs" / "images" / run))
    assert code == 0, err
    shown = json.loads(command("show", run, "--json")[1])
    assert shown["folder"] == str(tmp_path / "runs" / "images" / run)
    assert shown["metrics"]["frechet_distance"]["value"] == pytest.approx(1 / 0.5 + 1 / 16)
    assert (Path(shown["folder"]) / "steps" / "train" / "model.json").exists()
    assert (Path(shown["folder"]) / "report.html").exists()
    tree = json.loads(command("lineage", f"{run}/samples", "--json")[1])
    assert tree["parents"][0]["parents"][0]["artifact"] == "dataset", "from the folder, without the cloud"


def test_registered_model_is_downloaded_and_verified(cloud, command, tmp_path):
    run = deploy(command, "--set", "train.learning_rate=0.5", "--set", "job=for-download")
    assert monitor(command, run, "--follow")[0] == 0
    assert command("download", "for-download@1", str(tmp_path / "model"))[0] == 0
    assert (tmp_path / "model" / "model" / "model.json").exists()


def test_old_runs_go_with_their_metadata_and_what_is_referred_to_stays(cloud, command):
    champion = deploy(command, "--set", "train.learning_rate=0.31", "--set", "job=kept-model")
    assert monitor(command, champion, "--follow")[0] == 0
    listed = {one.run: one for one in candidates(cloud.vertex, "gs://demo-bucket/registry", days=0)}
    assert listed[champion].reason == "is where a registered version comes from"
    going = deploy(command, "--set", "data.limit=18", "--set", "train.learning_rate=0.01", "--set", "job=kept-model")
    assert monitor(command, going, "--follow")[0] == 0
    listed = {one.run: one for one in candidates(cloud.vertex, "gs://demo-bucket/registry", days=0)}
    assert (listed[going].reason, listed[going].files > 0) == ("", True)
    code, out, _ = command("gc", "--keep-days", "0")
    assert (code, going in out, "would remove" in out) == (0, True, True)
    assert cloud.gcs.names("demo-bucket", f"images/{going}/"), "a dry run removes nothing"
    assert command("gc", "--keep-days", "30")[1].count("is younger than 30 days") >= 2
    remove(cloud.vertex, listed[going])
    assert cloud.gcs.names("demo-bucket", f"images/{going}/") == []
    assert command("monitor", going)[0] == 2
    again = deploy(command, "--set", "data.limit=18", "--set", "train.learning_rate=0.01", "--set", "job=kept-model")
    assert monitor(command, again, "--follow")[0] == 0
    assert states(command, again)["prepare-data"] == "succeeded", "the cache must not serve what is gone"


def test_checkpoints_and_curves_go_when_they_are_old_and_nothing_runs(cloud, command):
    bucket = cloud.gcs.client().bucket("demo-bucket")
    for name in ("work/0123/manifest-00000001.json", "work/0123/data/1-a", "tensorboard/toy-45/train/logs/events"):
        bucket.blob(name).upload_from_string("12345")

    def beside(days):
        found = {one.run: one for one in candidates(cloud.vertex, "gs://demo-bucket/registry", days=days)}
        return found["work/0123"], found["tensorboard/toy-45"]

    assert [one.reason for one in beside(30)] == ["is younger than 30 days"] * 2
    run = deploy(command, "--set", "train.seed=99", "--set", "train.learning_rate=0.33")
    assert [one.reason for one in beside(0)] == ["a run is going on"] * 2
    command("cancel", run)
    assert monitor(command, run, "--follow")[0] == 130
    work, curves = beside(0)
    assert (work.reason, work.files, work.bytes, curves.reason) == ("", 2, 10, "")
    remove(cloud.vertex, work)
    assert cloud.gcs.names("demo-bucket", "work/0123") == []
    assert cloud.gcs.names("demo-bucket", "tensorboard/toy-45") != []


def checks(command):
    code, out, _ = command("doctor", "--json")
    return code, {row["check"]: row for row in json.loads(out)}


def test_doctor_is_content_with_a_project_that_has_everything(cloud, command):
    code, found = checks(command)
    assert {name for name, row in found.items() if row["state"] == "missing"} == set()
    assert code == 0
    assert found["project access"]["found"] == "number 123456789012"


def test_doctor_looks_for_dataflow_where_it_is_to_be_used(cloud, command, monkeypatch):
    assert "dataflow.googleapis.com" not in checks(command)[1]
    monkeypatch.setattr(cloud.server.platform, "denied", {"dataflow.jobs.create"})
    monkeypatch.setenv("TEXTDIFFUSION_DATAFLOW", "{workers: 4}")
    found = checks(command)[1]
    role = f"gcloud projects add-iam-policy-binding demo {YOU} --role=roles/dataflow.developer"
    assert mends(found)["dataflow.jobs.create"] == role
    assert mends(found)["dataflow.googleapis.com"].startswith("gcloud services enable dataflow.googleapis.com")
    assert mends(found)["image with Beam"] == "make push BEAM=1"


YOU = "--member=user:$(gcloud config get account)"


def test_doctor_says_the_command_that_mends_what_is_missing(cloud, command, monkeypatch):
    platform = cloud.server.platform
    monkeypatch.setattr(platform, "enabled", platform.enabled - {"aiplatform.googleapis.com"})
    monkeypatch.setattr(platform, "denied", {"logging.logEntries.list"})
    monkeypatch.setattr(platform, "accounts", set())
    monkeypatch.setattr(platform, "images", set())
    monkeypatch.setenv("TEXTDIFFUSION_BUCKET", "absent")
    code, found = checks(command)
    assert code == 1
    assert mends(found) == {
        "aiplatform.googleapis.com": "gcloud services enable aiplatform.googleapis.com --project=demo",
        "logging.logEntries.list": f"gcloud projects add-iam-policy-binding demo {YOU} --role=roles/logging.viewer",
        "bucket": "gcloud storage buckets create gs://absent --project=demo --location=us-central1"
        " --uniform-bucket-level-access --enable-hierarchical-namespace",
        "service account": "gcloud iam service-accounts create pipelines --project=demo",
        "image": "make push",
    }


def mends(found):
    return {name: row["mend"] for name, row in found.items() if row["state"] == "missing"}


def test_doctor_says_the_role_that_is_missing_on_account_and_image(cloud, command, monkeypatch):
    monkeypatch.setattr(cloud.server.platform, "denied", {"iam.serviceAccounts.actAs"})
    monkeypatch.setattr(cloud.server.platform, "unreadable", {"demo/factory/textdiffusion:test"})
    account = "gcloud iam service-accounts add-iam-policy-binding pipelines@demo.iam.gserviceaccount.com"
    assert mends(checks(command)[1]) == {
        "iam.serviceAccounts.actAs": f"{account} --project=demo {YOU} --role=roles/iam.serviceAccountUser",
        "image": "gcloud artifacts repositories add-iam-policy-binding factory --project=demo --location=us-central1"
        f" {YOU} --role=roles/artifactregistry.reader",
    }


@pytest.mark.parametrize(
    ("setting", "value", "check", "mend"),
    [
        (
            "REGION",
            "europe-west4",
            "bucket",
            "gcloud storage buckets create gs://demo-bucket-europe-west4 --project=demo --location=europe-west4"
            " --uniform-bucket-level-access --enable-hierarchical-namespace"
            " && sed -i 's/^bucket:.*/bucket: demo-bucket-europe-west4/' textdiffusion.yaml",
        ),
        ("REGION", "us-central", "region name", "gcloud compute regions list --format='value(name)'"),
        ("IMAGE", "td", "image", "echo 'image: us-central1-docker.pkg.dev/demo/textdiffusion/textdiffusion'"
                                 " >> textdiffusion.yaml"),
        ("PROJECT", "other", "project access", "gcloud projects add-iam-policy-binding other"
                                              f" {YOU} --role=roles/browser"),
    ],
)  # fmt: skip
def test_doctor_mends_settings_that_do_not_fit_the_project(cloud, command, monkeypatch, setting, value, check, mend):
    monkeypatch.setenv(f"TEXTDIFFUSION_{setting}", value)
    code, found = checks(command)
    assert code == 1
    assert mends(found)[check] == mend


def test_doctor_begins_with_the_settings(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("doctor", "--cloud", "--json")
    found = {row["check"]: row for row in json.loads(out)}
    assert code == 1
    assert found["project"]["mend"] == "echo 'project: YOURS' >> textdiffusion.yaml"
    assert "bucket" in found
    assert "credentials" not in found


def test_mirror_adds_versions_that_the_vertex_registry_lacks(cloud, command):
    run = deploy(command, "--set", "train.learning_rate=0.5", "--set", "job=mirrored")
    assert monitor(command, run, "--follow")[0] == 0
    name = f"{cloud.vertex.project.parent}/models/mirrored"
    cloud.vertex.models.delete_model(name=name).result()
    assert command("models", "mirrored", "--mirror")[0] == 0
    assert cloud.vertex.models.get_model(name=f"{name}@champion").version_id == "1"


def test_a_mirrored_version_names_a_container_that_serves_it_and_one_that_did_not_is_renewed(cloud, command):
    run = deploy(command, "--set", "train.learning_rate=0.4", "--set", "job=served")
    assert monitor(command, run, "--follow")[0] == 0
    models, name = cloud.vertex.models, f"{cloud.vertex.project.parent}/models/served"
    made = models.get_model(name=f"{name}@champion")
    assert made.artifact_uri == "gs://demo-bucket/registry/served/versions/00001"
    spec = made.container_spec
    assert (spec.image_uri, list(spec.command), list(spec.args)) == (IMAGE, ["textdiffusion"], ["serve"])
    assert ([port.container_port for port in spec.ports], spec.health_route) == ([8080], "/health")
    assert spec.predict_route == "/predict"
    models.delete_model(name=name).result()
    before = {"display_name": "served", "container_spec": {"image_uri": IMAGE}, "version_aliases": ["v1", "champion"]}
    models.upload_model(request={"parent": cloud.vertex.project.parent, "model": before, "model_id": "served"}).result()
    for _ in range(2):
        assert command("models", "served", "--mirror")[0] == 0
    renewed = models.get_model(name=f"{name}@champion")
    assert (renewed.version_id, set(renewed.version_aliases)) == ("2", {"v1", "champion", "default"})
    assert renewed.container_spec.predict_route == "/predict"
