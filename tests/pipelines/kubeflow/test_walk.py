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
