"""Schedules live by their name; a retraining trains only on something new and promotes only what is better."""

from __future__ import annotations

import json

import pytest

from tests.pipelines.vertex.test_runs import monitor, states


@pytest.fixture
def scheduled(cloud, command, tmp_path, request):
    """A schedule called as the test, for a model of its own, whose data is a prefix in the bucket."""
    name = f"m{abs(hash(request.node.name)) % 10**8}"
    bucket = cloud.gcs.client().bucket("demo-bucket")
    bucket.blob(f"data/{name}/a.npz").upload_from_string("one")
    text = (tmp_path / "toy.yaml").read_text().replace("job: toy", f"job: {name}")
    data = f"data: {{source: npz, data_dir: gs://demo-bucket/data/{name}}}"
    (tmp_path / "toy.yaml").write_text(text.replace("data: {source: digits}", data))
    code, _, err = command("schedule", "create", "toy.yaml", "--name", name, "--cron", "0 3 * * 1",
                           "--timezone", "Europe/Berlin", "--set", "train.learning_rate=0.5")  # fmt: skip
    assert code == 0, err
    yield name
    command("schedule", "delete", name)


def entry(command, name):
    found = [row for row in json.loads(command("schedule", "list", "--json")[1]) if row["name"] == name]
    return found[0] if found else None


def fire(cloud, command, name):
    run = cloud.server.schedules.fire(name).rsplit("/", 1)[1]
    assert monitor(command, run, "--follow")[0] == 0
    return run


def history(command, name):
    return [(e["event"], e["reason"]) for e in json.loads(command("models", name, "--json")[1])["history"]]


def test_schedule_is_found_by_name_and_changed_in_place(cloud, command, scheduled):
    made = entry(command, scheduled)
    assert (made["cron"], made["state"], made["job"]) == ("CRON_TZ=Europe/Berlin 0 3 * * 1", "active", scheduled)
    assert made["next_run"]
    assert command("schedule", "pause", scheduled)[0] == 0
    assert entry(command, scheduled)["state"] == "paused"
    assert command("schedule", "pause", scheduled)[0] == 2, "it is paused"
    assert command("schedule", "resume", scheduled)[0] == 0
    code, _, _ = command("schedule", "update", scheduled, "--cron", "30 4 * * *", "--timezone", "Asia/Tokyo")
    assert code == 0
    changed = entry(command, scheduled)
    assert (changed["cron"], changed["resource"]) == ("CRON_TZ=Asia/Tokyo 30 4 * * *", made["resource"])
    assert command("schedule", "update", scheduled, "--cron", "45 4 * * *")[0] == 0
    assert entry(command, scheduled)["cron"] == "CRON_TZ=Asia/Tokyo 45 4 * * *", "the time zone stays"
    assert command("schedule", "update", scheduled, "--timezone", "Europe/Berlin")[0] == 0
    changed = entry(command, scheduled)
    assert changed["cron"] == "CRON_TZ=Europe/Berlin 45 4 * * *"
    code, _, _ = command("schedule", "update", scheduled, "--job", "toy.yaml", "--set", "train.learning_rate=0.6")
    assert code == 0
    sent = cloud.vertex.schedules.get_schedule(name=made["resource"]).create_pipeline_job_request.pipeline_job
    assert dict(dict(sent.runtime_config.parameter_values)["train"])["learning_rate"] == 0.6
    assert entry(command, scheduled)["cron"] == changed["cron"], "only what was named is changed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pause", "nightly"), "there is none; schedules: "),
        (("update", "{name}"), "nothing to change"),
        (("update", "{name}", "--cron", "0 25 * * *"), "field 2 is '25'; allowed: hour 0-23"),
        (("create", "toy.yaml", "--name", "{name}", "--cron", "0 3 * * *"), "there is one already"),
        (("create", "mnist-sampling", "--cron", "0 3 * * *"), "only training jobs are retrained"),
    ],
)
def test_what_a_schedule_refuses_is_one_line(cloud, command, scheduled, arguments, words):
    code, _, err = command("schedule", *(part.format(name=scheduled) for part in arguments))
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def test_retraining_promotes_the_better_skips_the_same_and_keeps_the_champion_against_the_worse(
    cloud, command, scheduled
):
    first = fire(cloud, command, scheduled)
    assert states(command, first)["check-data"] == "succeeded"
    assert history(command, scheduled)[-1][0] == "promote"

    same = fire(cloud, command, scheduled)
    assert set(states(command, same).values()) == {"succeeded", "skipped"}
    assert states(command, same)["check-data"] == "succeeded"
    event, reason = history(command, scheduled)[-1]
    assert event == "skip"
    assert reason.startswith("the 1 files and the configuration are those of")

    cloud.gcs.client().bucket("demo-bucket").blob(f"data/{scheduled}/b.npz").upload_from_string("two")
    command("schedule", "update", scheduled, "--job", "toy.yaml", "--set", "train.learning_rate=0.25")
    worse = fire(cloud, command, scheduled)
    event, reason = history(command, scheduled)[-1]
    assert event == "keep"
    assert states(command, worse)["keep"] == "succeeded"
    assert "no improvement" in reason

    command("schedule", "update", scheduled, "--job", "toy.yaml", "--set", "train.learning_rate=0.75")
    fire(cloud, command, scheduled)
    assert history(command, scheduled)[-1][0] == "promote"
    versions = json.loads(command("models", scheduled, "--json")[1])["versions"]
    assert [(v["version"], v["alias"]) for v in versions] == [(1, None), (2, "champion")]
    name = f"{cloud.vertex.project.parent}/models/{scheduled}"
    assert cloud.vertex.models.get_model(name=f"{name}@champion").version_id == "2"

    assert command("rollback", scheduled, "--reason", "complaints")[0] == 0
    assert cloud.vertex.models.get_model(name=f"{name}@champion").version_id == "1"
    assert command("promote", f"{scheduled}@2")[0] == 0
    assert cloud.vertex.models.get_model(name=f"{name}@champion").version_id == "2"


def test_schedule_says_what_each_run_costs_and_keeps_the_cap(cloud, command, scheduled):
    code, out, err = command("schedule", "update", scheduled, "--job", "toy.yaml", "--max-cost", "5",
                             "--machine", "t4,l4", "--json")  # fmt: skip
    assert code == 0
    assert json.loads(out)[0]["name"] == scheduled
    assert "each run: at most" in err
    assert "the clock starts runs on the first machine" in err
    code, _, err = command("schedule", "update", scheduled, "--job", "toy.yaml", "--max-cost", "0.1")
    assert code == 2
    assert "--max-cost 0.1: the run is estimated at" in err


def test_failed_retraining_is_not_taken_for_done(cloud, command, scheduled):
    cloud.server.fail("sample", "crash")
    run = cloud.server.schedules.fire(scheduled).rsplit("/", 1)[1]
    assert monitor(command, run, "--follow")[0] == 1
    after = fire(cloud, command, scheduled)
    assert states(command, after)["sample"] == "succeeded"
    assert history(command, scheduled)[-1][0] == "promote"
