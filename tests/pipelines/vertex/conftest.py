"""A project in the cloud, on this machine: storage, Vertex AI and what a deployment asks of the platform.

Steps are stand-ins that take no time; `test_walk.py` has the real ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipelines.settings import load_settings
from pipelines.vertex.client import ENDPOINT, Project, Vertex
from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer
from textdiffusion.cli.app import main

STANDIN = Path(__file__).parents[2] / "local" / "standin"
PRELOAD = (
    *("torch", "gcsfs", "google.cloud.aiplatform_v1", "report", "detect_secrets"),
    *("factory.gate", "factory.drift", "components.publish"),
)
JOB = """
job: toy
description: A job whose steps are stand-ins
modality: images
data: {source: digits}
train: {examples: 512}
gate: {metric: frechet_distance, first_floors: 0}
resources: {timeout_hours: 0.5}
"""
IMAGE = "us-central1-docker.pkg.dev/demo/factory/textdiffusion:test"


@dataclass
class Cloud:
    """The servers, and the variables that point commands at them."""

    gcs: GcsServer
    server: VertexServer
    environment: dict[str, str]

    @property
    def vertex(self) -> Vertex:
        settings = load_settings(environment=self.environment, file=Path("absent"))
        return Vertex(replace(Project.of(settings), endpoint=self.environment[ENDPOINT]))


def make_cloud(gcs: GcsServer, server: VertexServer) -> Cloud:
    gcs.create_bucket("demo-bucket")
    for image in (IMAGE, f"{IMAGE}-trials"):
        server.platform.images.add(image.partition("/")[2])
    environment = {
        **gcs.environment,
        ENDPOINT: server.url,
        "TEXTDIFFUSION_PROJECT": "demo",
        "TEXTDIFFUSION_REGION": "us-central1",
        "TEXTDIFFUSION_BUCKET": "demo-bucket",
        "TEXTDIFFUSION_SERVICE_ACCOUNT": "pipelines@demo.iam.gserviceaccount.com",
        "TEXTDIFFUSION_IMAGE": IMAGE,
        "TEXTDIFFUSION_REGISTRY": "gs://demo-bucket/registry",
    }
    return Cloud(gcs, server, environment)


@pytest.fixture(scope="package")
def project() -> Iterator[Cloud]:
    with tempfile.TemporaryDirectory(prefix="work-") as work:  # pytest's own folders are closed to the steps' user
        Path(work).chmod(0o777)
        image = {
            "PYTHONPATH": str(STANDIN),
            "TEXTDIFFUSION_CODE_VERSION": "abc123",
            "TEXTDIFFUSION_WORK": work,
        }
        with GcsServer() as gcs, VertexServer(gcs, environment=image, preload=PRELOAD) as server:
            yield make_cloud(gcs, server)


@pytest.fixture
def cloud(project: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    """The project, for commands of this test: environment set, working directory empty."""
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(JOB)
    return project


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `textdiffusion ...` and returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run
