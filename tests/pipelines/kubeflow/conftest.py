"""An installation on this machine that executes runs; steps are the stand-ins of the tests of Vertex AI."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.gcs import GcsServer
from tests.fakes.kubeflow import KubeflowServer
from tests.pipelines.vertex.conftest import JOB, PRELOAD, STANDIN, command

__all__ = ["command"]


@dataclass
class Cluster:
    """The servers, and the variables that point commands at them."""

    gcs: GcsServer
    server: KubeflowServer
    environment: dict[str, str]

    def run(self, name: str):
        """A run as the server has it."""
        return next(run for run in self.server.runs.values() if name in (run.display_name, run.run_id))


@pytest.fixture(scope="package")
def installation() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="work-") as work:  # pytest's own folders are closed to the steps' user
        Path(work).chmod(0o777)
        image = {"PYTHONPATH": str(STANDIN), "TEXTDIFFUSION_CODE_VERSION": "abc123", "TEXTDIFFUSION_WORK": work}
        with GcsServer() as gcs, KubeflowServer(gcs, environment=image, preload=PRELOAD) as server:
            gcs.create_bucket("demo-bucket")
            yield Cluster(gcs, server, {
                **gcs.environment,
                "TEXTDIFFUSION_KUBEFLOW_HOST": server.url,
                "TEXTDIFFUSION_KUBEFLOW_ROOT": "gs://demo-bucket/v2/artifacts",
                "TEXTDIFFUSION_REGISTRY": "gs://demo-bucket/registry",
                "TEXTDIFFUSION_IMAGE": "registry.example/textdiffusion:test",
            })  # fmt: skip


@pytest.fixture
def cluster(installation: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    """The installation, for commands of this test: environment set, working directory empty."""
    for name, value in installation.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(JOB)
    return installation
