"""From nothing to a generated picture, on Kubeflow Pipelines with a store that speaks S3; nothing is Google's.

`python -m tests.pipelines.kubeflow.walk FILE` takes the walk and writes what was typed and answered to FILE; with
`--nodes` the way of a training on two nodes of the cluster.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.kubeflow import KubeflowServer
from tests.fakes.kubernetes import Kubernetes
from tests.fakes.kubernetes.pods import Pod
from tests.fakes.s3 import S3Server
from tests.pipelines import walk

PRELOAD = ("torch", "s3fs", "core.images.modality", "report", "components.publish")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Walk(walk.Walk):
    """The commands in their order; pods have the keys of the store from a secret of the cluster, and nothing else."""

    def __init__(self, store: S3Server, server: KubeflowServer, cluster: Kubernetes, folder: Path) -> None:
        store.create_bucket(walk.BUCKET)
        server.secrets = cluster.secrets = {"store": {key: store.environment[key] for key in KEYS}}
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
        environment = {**store.environment, "KUBECONFIG": str(cluster.config)}
        super().__init__(folder, environment, store, "{train: cpu, sample: cpu}")
        self.server, self.cluster = server, cluster
        server.front_end = True

    def strike(self, schedule: str) -> str:
        (identity,) = self.server.schedules.advance(days=7)
        return str(self.server.runs[identity].display_name)

    def take_on_nodes(self) -> dict[str, str]:
        """A training by a TrainJob of the cluster, and one that is cancelled; what the tests look at."""
        self.put_digits(600)
        self.run("doctor")
        more = ("small-mnist.yaml", "--set", "resources.replicas=2", "--set")
        first = walk.run_of(self.run("deploy", *more, "train.examples=512", "--follow", "--interval", "0.2"))
        seen = {"logs": self.run("monitor", first, "--logs", "--step", "train")}
        self.note("somebody thinks better of a longer one, while its nodes train")
        long = walk.run_of(self.run("deploy", *more, "train.examples=1000000"))
        deadline = time.monotonic() + 300
        while not any("examples" in line for pod in self._pods() for _, line in pod.logs[-1]):
            assert time.monotonic() < deadline, "the nodes do not train"
            time.sleep(0.2)
        self.run("cancel", long)
        seen["cancelled"] = self.run("monitor", long, "--follow", "--interval", "0.2", code=130)
        return seen

    def _pods(self) -> list[Pod]:
        with self.cluster.lock:
            return [pod for pods in self.cluster.pods.values() for pod in pods]


@contextmanager
def installed(folder: Path) -> Iterator[Walk]:
    """A cluster and a store that have nothing yet."""
    image = walk.IMAGE_ENVIRONMENT
    with S3Server() as store, Kubernetes(folder, environment=image, namespace="kubeflow") as cluster:
        pods = {**image, "KUBECONFIG": str(cluster.config), "KFP_POD_UID": "uid-of-the-pod"}
        with KubeflowServer(store, environment=pods, preload=PRELOAD) as server:
            yield Walk(store, server, cluster, folder)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, installed(Path(folder)) as taken, taken.kept_in(sys.argv[1]):
        (taken.take_on_nodes if "--nodes" in sys.argv else taken.take)()


if __name__ == "__main__":
    main()
