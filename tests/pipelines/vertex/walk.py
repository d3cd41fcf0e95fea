"""From nothing to a generated picture, on Vertex AI: the steps are real, the cloud is on this machine.

`python -m tests.pipelines.vertex.walk FILE` takes the walk and writes what was typed and answered to FILE.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer
from tests.pipelines import walk
from tests.pipelines.vertex.conftest import Cloud, make_cloud

PRELOAD = ("torch", "gcsfs", "google.cloud.aiplatform_v1", "core.images.modality", "report", "components.publish")
BOARD = "projects/demo/locations/us-central1/tensorboards/77"


class Walk(walk.Walk):
    """The commands in their order; each is checked, and what they said is kept."""

    deploy = ("--machine", "l4,t4", "--spot", "--max-cost", "5")
    schedule = ("--timezone", "Europe/Berlin")
    work = "work/"

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        environment = {**cloud.environment, "TEXTDIFFUSION_TENSORBOARD": BOARD}
        super().__init__(folder, environment, cloud.gcs, "{timeout_hours: 0.5, replicas: 2}")
        self.cloud = cloud
        cloud.server.jobs.tensorboards.add(BOARD)

    def strike(self, schedule: str) -> str:
        return str(self.cloud.server.schedules.fire(schedule).rsplit("/", 1)[1])


def main() -> None:
    with (
        GcsServer() as gcs,
        VertexServer(gcs, environment=walk.IMAGE_ENVIRONMENT, preload=PRELOAD) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        taken = Walk(make_cloud(gcs, server), Path(folder))
        with taken.kept_in(sys.argv[1]):
            taken.take()


if __name__ == "__main__":
    main()
