"""The whole way with real training, from a cluster and a store that have nothing to a picture of a seven; no Google."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.kubeflow.walk import installed
from tests.pipelines.walk import BUCKET, require_the_way


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_walk_from_zero(tmp_path: Path) -> None:
    with installed(tmp_path) as walk:
        with walk.kept_in(tmp_path / "transcript.txt"):
            seen = walk.take()
        require_the_way(seen, tmp_path)
        assert "image registry.example/textdiffusion:test" in seen["lineage"]
        first, better, _, _ = seen["runs"]
        made = {run.display_name: run.run_id for run in walk.server.runs.values()}
        assert made[better] in seen["models"], "the version names the run that made it"
        names = walk.store.names(BUCKET, f"pipelines/images/{made[first]}/")
        assert any(name.endswith("/model/weights.safetensors") for name in names)
        for run, facts in zip(seen["drawn"], ("small-mnist", f"{walk.root}/registry/.work/"), strict=True):
            assert facts in walk.run("lineage", f"{run}/samples", "--json", quiet=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_on_two_nodes_ends_with_its_model_and_a_cancelled_one_leaves_none_behind(tmp_path: Path) -> None:
    with installed(tmp_path) as walk:
        with walk.kept_in(tmp_path / "transcript.txt"):
            seen = walk.take_on_nodes()
        assert "nodes: TrainJob kubeflow/train-" in seen["logs"]
        assert "node 0: train: 512/512 examples" in seen["logs"]
        assert "nodes: Complete: AllJobsCompleted" in seen["logs"]
        assert walk.champion() == 1
        assert "train  cancelled" in seen["cancelled"]
        assert len(walk.cluster.created) == 2
        assert walk.cluster.jobs == {}, "it is deleted before its pod's grace is over"
        assert not [name for name in walk.store.names(BUCKET, "registry/.work") if name.endswith("complete.json")]
