"""The way from nothing to a generated picture, on either service: commands typed and answered, kept as a transcript.

`vertex/walk.py` and `kubeflow/walk.py` say where the bucket is, what the clock does and what differs.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from textdiffusion.cli.app import main as main_command

BUCKET = "demo-bucket"
IMAGE_ENVIRONMENT = {"TEXTDIFFUSION_CODE_VERSION": "0123456789abcdef0123456789abcdef01234567"}
"""What the image of the steps has in its environment."""
_JOB = """
job: small-mnist
description: MNIST-like digits, a few hundred examples, to see every step work
modality: images
data: {source: mnist, data_dir: DATA}
model: {network: {channels: [8, 16], blocks: [0, 1], head_channels: 8, embedding: 16, patch: 2}}
train: {examples: 512, batch_size: 64, warmup_examples: 64}
sample: {count: 64, steps: 6, batch_size: 64}
evaluate: {count: 64, judge_epochs: 2}
gate: {metric: frechet_distance, first_floors: 0}
resources: RESOURCES
"""
_DRAW = """
job: draw-digits
description: Samples of a model that is there already
modality: images
kind: sampling
source: {model: small-mnist@champion}
data: {source: mnist, data_dir: DATA}
sample: {count: 32, steps: 4, batch_size: 32}
evaluate: {count: 32, judge_epochs: 1}
"""


class Recorder:
    """Runs commands in a folder and keeps what was typed and answered."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, {**environment, "COLUMNS": "160"}
        self.transcript: list[str] = []

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

    @contextlib.contextmanager
    def kept_in(self, file: str | Path) -> Any:
        """Writes the transcript to `file`, also of a walk that broke off."""
        try:
            yield
        finally:
            Path(file).write_text("\n".join(self.transcript))


class Walk(Recorder):
    """From nothing to a generated picture. A service says the rest.

    Args:
        store: `GcsServer` or `S3Server`.
        resources: of the training job, as YAML.
    """

    deploy: tuple[str, ...] = ()
    schedule: tuple[str, ...] = ()
    work = "registry/.work/"
    """Options of the first run and of the schedule; where trainings leave their checkpoints in the bucket."""

    def __init__(self, folder: Path, environment: dict[str, str], store: Any, resources: str = "{}") -> None:
        super().__init__(folder, environment)
        self.store, self.root = store, f"{store.scheme}{BUCKET}"
        data = f"{self.root}/data/mnist"
        (folder / "small-mnist.yaml").write_text(_JOB.replace("DATA", data).replace("RESOURCES", resources))
        (folder / "draw-digits.yaml").write_text(_DRAW.replace("DATA", data))

    def strike(self, schedule: str) -> str:
        """Lets the schedule's clock start a run; its id."""
        raise NotImplementedError

    def fire(self, schedule: str) -> str:
        """What the schedule's clock does; returns the run."""
        run = self.strike(schedule)
        self.note("the clock strikes")
        return run

    def champion(self) -> int:
        """The version that is in service."""
        return int(json.loads(self.store.get(BUCKET, "registry/small-mnist/champion.json"))["version"])

    def draw(self, source: str) -> str:
        """A sampling job that starts from `source`; returns its run."""
        return run_of(
            self.run("deploy", "draw-digits.yaml", "--set", f"source.model={source}", "--follow", "--interval", "0.2")
        )

    def checkpoints(self) -> str:
        """URI of the checkpoints of one of the trainings."""
        name = next(n for n in self.store.names(BUCKET, self.work) if "manifest-" in n)
        return f"{self.root}/{name.rsplit('/', 1)[0]}"

    def put_digits(self, count: int) -> None:
        put_digits(lambda name, data: self.store.put(BUCKET, f"data/mnist/{name}", data), count)

    def take(self) -> dict[str, Any]:
        """The whole way; returns what the tests look at."""
        seen: dict[str, Any] = {}
        self.put_digits(600)
        self.run("doctor")
        first = run_of(self.run("deploy", "small-mnist.yaml", *self.deploy))
        self.run("monitor", first, "--follow", "--interval", "0.2")
        self.run("monitor", first, "--logs", "--step", "train")
        seen["first"] = self.champion()
        seen["lineage"] = self.run("lineage", f"{first}/samples")
        self.run(
            *("schedule", "create", "small-mnist.yaml", "--name", "weekly", "--cron", "0 3 * * 1"),
            *(*self.schedule, "--set", "train.examples=6400"),
        )
        self.run("schedule", "list")
        better = self.fire("weekly")
        self.run("monitor", better, "--follow", "--interval", "0.2")
        seen["better"] = self.champion()
        self.note("new data arrives, and somebody makes training much too short")
        self.put_digits(700)
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


def run_of(said: str) -> str:
    """The run that `deploy` says it has started."""
    return str(re.search(r"^run: (\S+)", said, re.MULTILINE)[1])  # type: ignore[index]


def put_digits(put: Callable[[str, bytes], None], count: int) -> None:
    """scikit-learn's digits, enlarged to 28x28 and in MNIST's own file format; `put` takes a file's name and bytes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.clip(digits.images[: count + 200] * 16, 0, 255).astype(np.uint8)
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    labels = digits.target[: count + 200].astype(np.uint8)
    for part, rows in (("train", slice(0, count)), ("t10k", slice(count, count + 200))):
        for name, array in (("images-idx3-ubyte", images[rows]), ("labels-idx1-ubyte", labels[rows])):
            head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
            packed = io.BytesIO()
            with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream:
                stream.write(head + array.tobytes())
            put(f"{part}-{name}.gz", packed.getvalue())


def require_the_way(seen: dict[str, Any], folder: Path) -> None:
    """What holds on either service: who was promoted and why, what was shown, where artifacts come from."""
    from PIL import Image

    assert (seen["first"], seen["better"], seen["worse"], seen["rolled back"]) == (1, 2, 2, 1)
    for fact in ("data_hash", "code_version 0123456789abcdef", "prepare-data"):
        assert fact in seen["lineage"]
    _, better, worse, nothing = seen["runs"]
    assert "no improvement" in seen["models"]
    assert "the 4 files and the configuration are those of" in seen["models"]
    assert "prepare-data  succeeded" not in seen["nothing"], "nothing was new, so nothing was done"
    assert "frechet_distance" in seen["compare"]
    assert "frechet_distance" in seen["shown"]
    assert Image.open(folder / "seven.png").size[0] >= 28
    report = folder / "runs" / "images-retraining" / better / "report.html"
    assert report.stat().st_size > 10_000
    assert worse != nothing
    require_the_same_lineage(seen["local"], seen["remote"])


def require_the_same_lineage(local: dict[str, Any], remote: dict[str, Any]) -> None:
    """From a run folder and from the service come the same artifacts, facts and parents."""
    assert local.keys() == remote.keys()
    for key in local.keys() - {"parents"}:
        assert local[key] == remote[key], key
    for one, other in zip(*(sorted(n["parents"], key=lambda p: p["uri"]) for n in (local, remote)), strict=True):
        require_the_same_lineage(one, other)
