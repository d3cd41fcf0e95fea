"""Runs and registered versions side by side."""

from __future__ import annotations

from tests.local.conftest import Project


def test_versions_of_a_model_are_compared_like_runs(shared: Project) -> None:
    run = shared.latest().id
    found = shared.json("compare", "tiny@1", run)
    assert (found["first"], found["second"]) == ("tiny@1", run)
    assert {row["change"] for row in found["metrics"]} <= {0, None}
    assert found["metrics"]
    assert found["settings"] == []
    assert found["comparable"]
    assert shared.json("compare", "tiny@1", "tiny@champion")["first"] == "tiny@1"


def test_a_name_that_is_no_model_is_told_of_the_newest_run(shared: Project) -> None:
    refused = shared.call("generate", "--model", "tinny")
    assert refused.returncode == 2
    assert "no champion in" in refused.stderr
    assert "did you mean 'tiny'?" in refused.stderr
    assert "the newest run here has a model: --model latest" in refused.stderr
