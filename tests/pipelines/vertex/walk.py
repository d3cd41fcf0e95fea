"""From nothing to a generated picture, on Vertex AI: the steps are real, the cloud is on this machine.

`python -m tests.pipelines.vertex.walk FILE` takes the walk and writes what was typed and answered to FILE.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer
from tests.pipelines.vertex.conftest import Cloud, make_cloud
from textdiffusion.cli.app import main as main_command

PRELOAD = ("torch", "gcsfs", "google.cloud.aiplatform_v1", "core.images.modality", "report", "components.publish")
JOB = """
job: small-mnist
description: MNIST-like digits, a few hundred examples, to see every step work
modality: images
data: {source: mnist, data_dir: gs://demo-bucket/data/mnist}
model: {network: {channels: [8, 16], blocks: [0, 1], head_channels: 8, embedding: 16, patch: 2}}
train: {examples: 512, batch_size: 64, warmup_examples: 64}
sample: {count: 64, steps: 6, batch_size: 64}
evaluate: {count: 64, judge_epochs: 2}
gate: {metric: frechet_distance, first_floors: 0}
resources: {timeout_hours: 0.5, replicas: 2}
"""
DRAW = """
job: draw-digits
description: Samples of a model that is there already
modality: images
kind: sampling
source: {model: small-mnist@champion}
data: {source: mnist, data_dir: gs://demo-bucket/data/mnist}
sample: {count: 32, steps: 4, batch_size: 32}
evaluate: {count: 32, judge_epochs: 1}
"""
BOARD = "projects/demo/locations/us-central1/tensorboards/77"


def put_digits(gcs: GcsServer, count: int) -> None:
    """scikit-learn's digits, enlarged to 28x28 and in MNIST's own file format, in the bucket."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.clip(digits.images[: count + 200] * 16, 0, 255).astype(np.uint8)
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    labels = digits.target[: count + 200].astype(np.uint8)
    bucket = gcs.client().bucket("demo-bucket")
    for part, rows in (("train", slice(0, count)), ("t10k", slice(count, count + 200))):
        for name, array in (("images-idx3-ubyte", images[rows]), ("labels-idx1-ubyte", labels[rows])):
            head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
            packed = io.BytesIO()
            with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream:
                stream.write(head + array.tobytes())
            bucket.blob(f"data/mnist/{part}-{name}.gz").upload_from_string(packed.getvalue())


class Walk:
    """The commands in their order; each is checked, and what they said is kept."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud, self.folder = cloud, folder
        self.transcript: list[str] = []
        self.environment = {**cloud.environment, "COLUMNS": "160", "TEXTDIFFUSION_TENSORBOARD": BOARD}
        cloud.server.jobs.tensorboards.add(BOARD)
        (folder / "small-mnist.yaml").write_text(JOB)
        (folder / "draw-digits.yaml").write_text(DRAW)

    def run(self, *arguments: str, code: int = 0, quiet: bool = False) -> str:
        """`textdiffusion ARGUMENTS`; its output. The exit code must be `code`."""
        out, err, ended = io.StringIO(), io.StringIO(), 0
        with (
            mock.patch.dict(os.environ, self.environment),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main_command(list(arguments))
            except SystemExit as left:
                ended = int(left.code or 0)
        said = out.getvalue() + err.getvalue()
        assert ended == code, f"{' '.join(arguments)}: exit code {ended}\n{said}"
        if not quiet:
            shown = "\n".join(line.rstrip() for line in said.replace(str(self.folder), ".").splitlines())
            typed = " ".join(f"'{part}'" if " " in part else part for part in arguments)
            self.transcript.append(f"$ textdiffusion {typed}\n{shown}\n")
        return out.getvalue()

    def note(self, text: str) -> None:
        self.transcript.append(f"# {text}\n")

    def fire(self, schedule: str) -> str:
        """What the schedule's clock does; returns the run."""
        run = self.cloud.server.schedules.fire(schedule).rsplit("/", 1)[1]
        self.note("the clock strikes")
        return run

    def champion(self) -> int:
        """The version that is in service."""
        pointer = self.cloud.gcs.client().bucket("demo-bucket").blob("registry/small-mnist/champion.json")
        return int(json.loads(pointer.download_as_text())["version"])

    def draw(self, source: str) -> str:
        """A sampling job that starts from `source`; returns its run."""
        out = self.run("deploy", "draw-digits.yaml", "--set", f"source.model={source}", "--follow", "--interval", "0.2")
        return re.search(r"^run: (\S+)", out, re.MULTILINE)[1]  # type: ignore[index]

    def checkpoints(self) -> str:
        """URI of the checkpoints of one of the trainings."""
        names = self.cloud.gcs.names("demo-bucket", "work/")
        return "gs://demo-bucket/" + next(n for n in names if "manifest-" in n).rsplit("/", 1)[0]

    def take(self) -> dict[str, Any]:
        """The whole way; returns what the test looks at."""
        seen: dict[str, Any] = {}
        put_digits(self.cloud.gcs, 600)
        self.run("doctor")
        out = self.run("deploy", "small-mnist.yaml", "--machine", "l4,t4", "--spot", "--max-cost", "5")
        first = re.search(r"^run: (\S+)", out, re.MULTILINE)[1]  # type: ignore[index]
        self.run("monitor", first, "--follow", "--interval", "0.2")
        self.run("monitor", first, "--logs", "--step", "train")
        seen["first"] = self.champion()
        seen["lineage"] = self.run("lineage", f"{first}/samples")
        self.run(
            *("schedule", "create", "small-mnist.yaml", "--name", "weekly", "--cron", "0 3 * * 1"),
            *("--timezone", "Europe/Berlin", "--set", "train.examples=6400"),
        )
        self.run("schedule", "list")
        better = self.fire("weekly")
        self.run("monitor", better, "--follow", "--interval", "0.2")
        seen["better"] = self.champion()
        self.note("new data arrives, and somebody makes training much too short")
        put_digits(self.cloud.gcs, 700)
        self.run("schedule", "update", "weekly", "--job", "small-mnist.yaml", "--set", "train.examples=128")
        worse = self.fire("weekly")
        self.run("monitor", worse, "--follow", "--interval", "0.2")
        seen["worse"] = self.champion()
        nothing = self.fire("weekly")
        seen["nothing"] = self.run("monitor", nothing, "--follow", "--interval", "0.2")
        seen["models"] = self.run("models", "small-mnist")
        seen["compare"] = self.run("compare", better, worse)
        self.run("rollback", "small-mnist", "--reason", "customers liked the first one better")
        seen["rolled back"] = self.champion()
        self.run("download", "small-mnist@champion", "model")
        self.run("generate", "--model", "model/model", "--class", "7", "--seed", "1", "--out", "seven.png")
        self.run("download", better, f"runs/images-retraining/{better}")
        seen["shown"] = self.run("show", better)
        seen["local"] = json.loads(self.run("lineage", f"{better}/samples", "--json", quiet=True))
        seen["remote"] = json.loads(self.run("lineage", seen["local"]["uri"], "--json", quiet=True))
        self.note("samples from the model that serves, and from a training's checkpoints")
        seen["drawn"] = [self.draw("small-mnist@champion"), self.draw(self.checkpoints())]
        self.run("gc", "--keep-days", "30", "--dry-run")
        seen["runs"] = (first, better, worse, nothing)
        return seen


def image_environment() -> dict[str, str]:
    """What the image of the steps has in its environment."""
    return {"TEXTDIFFUSION_CODE_VERSION": "0123456789abcdef0123456789abcdef01234567"}


def main() -> None:
    with (
        GcsServer() as gcs,
        VertexServer(gcs, environment=image_environment(), preload=PRELOAD) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        walk = Walk(make_cloud(gcs, server), Path(folder))
        try:
            walk.take()
        finally:
            Path(sys.argv[1]).write_text("\n".join(walk.transcript))


if __name__ == "__main__":
    main()
