"""From nothing to a generated picture, on Kubeflow Pipelines with a store that speaks S3; nothing is Google's.

`python -m tests.pipelines.kubeflow.walk FILE` takes the walk and writes what was typed and answered to FILE.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.kubeflow import KubeflowServer
from tests.fakes.s3 import S3Server
from tests.pipelines import walk

PRELOAD = ("torch", "s3fs", "core.images.modality", "report", "components.publish")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Walk(walk.Walk):
    """The commands in their order; pods have the keys of the store from a secret of the cluster, and nothing else."""

    def __init__(self, store: S3Server, server: KubeflowServer, folder: Path) -> None:
        store.create_bucket(walk.BUCKET)
        server.secrets["store"] = {key: store.environment[key] for key in KEYS}
        open_to_pods = {key: value for key, value in store.environment.items() if key not in KEYS}
        settings = {
            "kubeflow_host": server.url,
            "registry": f"s3://{walk.BUCKET}/registry",
            "kubeflow_root": f"s3://{walk.BUCKET}/pipelines",
            "kubeflow_environment": open_to_pods,
            "kubeflow_secrets": {"store": list(KEYS)},
            "image": "registry.example/textdiffusion:test",
        }
        (folder / "textdiffusion.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in settings.items()))
        super().__init__(folder, store.environment, store, "{train: cpu, sample: cpu}")
        self.server = server
        server.front_end = True

    def strike(self, schedule: str) -> str:
        (identity,) = self.server.schedules.advance(days=7)
        return str(self.server.runs[identity].display_name)


@contextmanager
def installed(folder: Path) -> Iterator[Walk]:
    """A cluster and a store that have nothing yet."""
    with S3Server() as store, KubeflowServer(store, environment=walk.IMAGE_ENVIRONMENT, preload=PRELOAD) as server:
        yield Walk(store, server, folder)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, installed(Path(folder)) as taken, taken.kept_in(sys.argv[1]):
        taken.take()


if __name__ == "__main__":
    main()
