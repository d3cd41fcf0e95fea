"""Recurring runs on Kubeflow live by their name, and start by the clock; a retraining promotes only what is better."""

from __future__ import annotations

import json

import pytest

from tests.pipelines.kubeflow.test_runs import monitor, states


@pytest.fixture
def scheduled(cluster, command, tmp_path, request):
    """A schedule called as the test, for a model of its own, whose data is a prefix in the bucket."""
    name = f"m{abs(hash(request.node.name)) % 10**8}"
    bucket = cluster.gcs.client().bucket("demo-bucket")
    bucket.blob(f"data/{name}/a.npz").upload_from_string("one")
    text = (tmp_path / "toy.yaml").read_text().replace("job: toy", f"job: {name}")
    data = f"data: {{source: npz, data_dir: gs://demo-bucket/data/{name}}}"
    (tmp_path / "toy.yaml").write_text(text.replace("data: {source: digits}", data))
    code, _, err = command("schedule", "create", "toy.yaml", "--name", name, "--cron", "0 3 * * 1",
                           "--set", "train.learning_rate=0.5")  # fmt: skip
    assert code == 0, err
    yield name
    command("schedule", "delete", name)


def entry(command, name):
    code, out, err = command("schedule", "list", "--json")
    assert code == 0, err
    return next((row for row in json.loads(out) if row["name"] == name), None)


def history(command, name):
    return [(e["event"], e["reason"]) for e in json.loads(command("models", name, "--json")[1])["history"]]


def week(cluster, command):
    """A week goes by; the one run that it started, at its end."""
    (identity,) = cluster.server.schedules.advance(days=7)
    run = cluster.server.runs[identity].display_name
    assert monitor(command, run, "--follow")[0] == 0
    return run


def test_schedule_is_found_by_name_and_changed_in_place(cluster, command, scheduled):
    made = entry(command, scheduled)
    assert (made["cron"], made["state"], made["job"]) == ("CRON_TZ=UTC 0 3 * * 1", "active", scheduled)
    sent = cluster.server.schedules.items[made["resource"]]
    assert sent.trigger.cron_schedule.cron == "0 0 3 * * 1", "six fields, seconds first"
    assert (sent.no_catchup, sent.max_concurrency) == (True, "1")
    assert command("schedule", "pause", scheduled)[0] == 0
    assert (entry(command, scheduled)["state"], entry(command, scheduled)["next_run"]) == ("paused", "")
    assert command("schedule", "update", scheduled, "--cron", "30 4 * * *")[0] == 0
    changed = entry(command, scheduled)
    assert (changed["cron"], changed["state"]) == ("CRON_TZ=UTC 30 4 * * *", "paused"), "it sleeps on"
    code, _, err = command("schedule", "pause", scheduled)
    assert (code, err) == (2, f"error: schedule {scheduled!r}: is paused\n")
    assert command("schedule", "resume", scheduled)[0] == 0
    code, _, err = command("schedule", "update", scheduled, "--job", "toy.yaml", "--set", "train.learning_rate=0.6")
    assert code == 0, err
    changed = entry(command, scheduled)
    assert (changed["cron"], changed["state"]) == ("CRON_TZ=UTC 30 4 * * *", "active"), "only what was named changes"
    sent = cluster.server.schedules.items[changed["resource"]]
    assert sent.runtime_config.parameters["train"]["learning_rate"] == 0.6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pause", "nightly"), "there is none; schedules: "),
        (("update", "{name}"), "nothing to change"),
        (("update", "{name}", "--cron", "0 25 * * *"), "field 2 is '25'; allowed: hour 0-23"),
        (
            ("update", "{name}", "--timezone", "Asia/Tokyo"),
            "in its controller's time zone, UTC; if CRON_SCHEDULE_TIMEZONE",
        ),
        (("create", "toy.yaml", "--name", "{name}", "--cron", "0 3 * * *"), "there is one already"),
        (
            ("create", "toy.yaml", "--cron", "0 3 * * *", "--runs", "3"),
            "--runs: is for Vertex AI; on Kubeflow use --end",
        ),
        (("create", "toy.yaml", "--name", "x", "--cron", "0 3 * * *", "--end", "soon"), "expected an RFC 3339 time"),
        (("resume", "{name}", "--catch-up"), "--catch-up: is for Vertex AI"),
        (("create", "mnist-sampling", "--cron", "0 3 * * *"), "only training jobs are retrained"),
    ],
)
def test_what_a_schedule_refuses_is_one_line(cluster, command, scheduled, arguments, words):
    code, _, err = command("schedule", *(part.format(name=scheduled) for part in arguments))
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def test_missed_times_are_not_made_up_for_and_an_end_is_kept(cluster, command, scheduled, tmp_path):
    assert command("schedule", "update", scheduled, "--cron", "0 3 * * *")[0] == 0
    started = cluster.server.schedules.advance(days=5)
    assert len(started) == 1, "one for five days"
    cluster.server.finish(started[0])
    assert command("schedule", "delete", scheduled)[0] == 0
    end = cluster.server.schedules.clock.isoformat()
    code, _, err = command("schedule", "create", "toy.yaml", "--name", scheduled, "--cron", "0 3 * * *", "--end", end)
    assert code == 0, err
    assert cluster.server.schedules.advance(days=5) == []


@pytest.mark.slow
def test_retraining_promotes_the_better_skips_the_same_and_keeps_the_champion_against_the_worse(
    cluster, command, scheduled
):
    first = week(cluster, command)
    assert states(command, first)["check-data"] == "succeeded"
    assert history(command, scheduled)[-1][0] == "promote"
    assert (entry(command, scheduled)["started"], entry(command, scheduled)["last_run"]) == (1, first)

    same = week(cluster, command)
    assert set(states(command, same).values()) == {"succeeded", "skipped"}
    assert history(command, scheduled)[-1][0] == "skip"

    cluster.gcs.client().bucket("demo-bucket").blob(f"data/{scheduled}/b.npz").upload_from_string("two")
    command("schedule", "update", scheduled, "--job", "toy.yaml", "--set", "train.learning_rate=0.25")
    worse = week(cluster, command)
    assert states(command, worse)["keep"] == "succeeded"
    assert history(command, scheduled)[-1][0] == "keep"

    command("schedule", "update", scheduled, "--job", "toy.yaml", "--set", "train.learning_rate=0.75")
    week(cluster, command)
    assert history(command, scheduled)[-1][0] == "promote"
    versions = json.loads(command("models", scheduled, "--json")[1])["versions"]
    assert [(v["version"], v["alias"]) for v in versions] == [(1, None), (2, "champion")]
    assert command("rollback", scheduled, "--reason", "complaints")[0] == 0
    assert json.loads(command("models", scheduled, "--json")[1])["versions"][0]["alias"] == "champion"
