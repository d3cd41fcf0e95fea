"""The whole way with real training: from a project that has nothing to a picture of a seven."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer
from tests.pipelines.vertex.conftest import make_cloud
from tests.pipelines.vertex.walk import PRELOAD, Walk
from tests.pipelines.walk import IMAGE_ENVIRONMENT, require_the_way


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_walk_from_zero(tmp_path: Path) -> None:
    with GcsServer() as gcs, VertexServer(gcs, environment=IMAGE_ENVIRONMENT, preload=PRELOAD) as server:
        cloud = make_cloud(gcs, server)
        walk = Walk(cloud, tmp_path)
        with walk.kept_in(tmp_path / "transcript.txt"):
            seen = walk.take()
        require_the_way(seen, tmp_path)
        assert "image us-central1-docker.pkg.dev" in seen["lineage"]
        first, better, _, _ = seen["runs"]
        assert better in seen["models"], "the version names the run that made it"
        weights = [name for name in gcs.names("demo-bucket", f"images/{first}/") if "weights.safetensors" in name]
        assert any("/train_-" in name for name in weights)
        name = f"{cloud.vertex.project.parent}/models/small-mnist"
        assert cloud.vertex.models.get_model(name=f"{name}@champion").version_id == "1"
        for run, facts in zip(seen["drawn"], ("small-mnist", "gs://demo-bucket/work/"), strict=True):
            (name,) = [n for n in gcs.names("demo-bucket", f"image-sampling/{run}/") if n.endswith("samples.npz")]
            assert facts in walk.run("lineage", f"{run}/samples", "--json", quiet=True)
        (card,) = [name for name in gcs.names("demo-bucket", f"images/{first}/") if name.endswith("/card")]
        text = gcs.get("demo-bucket", card).decode()
        assert text.startswith("# small-mnist version 1\n\nChampion: first model")
        events = gcs.names("demo-bucket", "tensorboard/")
        assert any("/train/logs/events.out.tfevents" in name for name in events), "the curves are where the board looks"
        pools = [len(job.job_spec.worker_pool_specs) for job in cloud.vertex.jobs.list_custom_jobs(
            parent=cloud.vertex.project.parent) if job.job_spec.tensorboard]  # fmt: skip
        assert set(pools) == {2}, "two replicas trained one model: two that trained apart would race for checkpoints"


TEXT_JOB = """
job: tiny-text
description: Two models of a text that says little, to see every step work
modality: text
data: {source: file, data_dir: gs://demo-bucket/data/in.txt, tokenizer: {kind: bpe, vocabulary: 300}}
model: {context: 16, transformer: {width: 32, depth: 1, heads: 2}, process: {embedding: 16, blocks: [4, 8]}}
train: {examples: 64, batch_size: 16, warmup_examples: 16}
autoregressive: {examples: 64, batch_size: 16, warmup_examples: 16}
sample: {count: 3, steps: 3, gap: 3, modes: [diffusion, autoregressive, guided], prompts: ["Anna said"]}
evaluate: {judge_order: 3, temperatures: [0.8], frontier_count: 2, spans: [4], span_count: 3, bound_windows: 4}
gate: {metric: judge_nll, first_floors: 0}
warm_start: true
resources: {timeout_hours: 0.5}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_text_job_trains_both_its_models_as_custom_jobs(tmp_path: Path) -> None:
    text = "".join(f"{name} said that the river was cold on day {i}.\n" for i in range(120) for name in ("Anna", "Ben"))
    preload = tuple(name.replace("core.images", "core.text") for name in PRELOAD)
    with GcsServer() as gcs, VertexServer(gcs, environment=IMAGE_ENVIRONMENT, preload=preload) as server:
        walk = Walk(make_cloud(gcs, server), tmp_path)
        gcs.client().bucket("demo-bucket").blob("data/in.txt").upload_from_string(text)
        (tmp_path / "tiny-text.yaml").write_text(TEXT_JOB)
        out = walk.run("deploy", "tiny-text.yaml", "--follow", "--interval", "0.2")
        assert "register  succeeded" in out
        shown = walk.run("monitor", "latest", "--logs", "--step", "train-diffusion")
        assert "train diffusion: 64/64 examples" in shown
        assert "KFP Executor" not in shown
        trained = {job.display_name for job in server.jobs.jobs.values() if job.job_spec.scheduling.timeout}
        on_gpus = {"train-judge", "sample", "evaluate", "gate"}  # custom jobs for their time limits
        assert trained == {"train-diffusion", "train-autoregressive", *on_gpus}
        parts = {name.split("/")[4] for name in gcs.names("demo-bucket", "registry/tiny-text/versions/00001/")}
        assert {"model", "autoregressive"} <= parts
