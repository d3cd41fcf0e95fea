"""`make test-gcsfuse`: the digits pipeline, with its artifacts in a bucket that the real gcsfuse has mounted.

gcsfuse is built from its Go module at a fixed version, in a cache folder outside of the repository. Its flags are its
defaults but for where the bucket is, and for who may enter: the steps' user. It cannot ask this storage server for its
layout, so that is said (`--enable-hns=false`: flat, the default of a bucket).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from unittest import mock

from tests.fakes.gcs import GcsServer
from tests.fakes.unprivileged import USER
from tests.fakes.vertex import VertexServer
from tests.pipelines.vertex.conftest import make_cloud

MODULE, VERSION = "github.com/googlecloudplatform/gcsfuse/v3", "v3.11.4"
BUCKET = "demo-bucket"
PRELOAD = ("torch", "gcsfs", "google.cloud.aiplatform_v1", "core.images.modality", "report", "components.publish")
JOB = """
job: small-digits
description: The digits pipeline with a budget that only shows every step work
modality: images
data: {source: digits}
model: {network: {channels: [8, 16], blocks: [0, 1], head_channels: 8, embedding: 16}}
train: {examples: 512, batch_size: 64, warmup_examples: 64}
sample: {count: 64, steps: 6, batch_size: 64}
evaluate: {count: 64, judge_epochs: 1}
gate: {metric: frechet_distance, first_floors: 0}
resources: {timeout_hours: 0.5}
"""


class CannotError(Exception):
    """Why gcsfuse cannot be tried here."""


def installed() -> Path:
    """The gcsfuse program, built if it is not there yet.

    Raises:
        CannotError: there is no Go, no module proxy, or no FUSE.
    """
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise CannotError("/dev/fuse is not there, or not open to this user")
    if shutil.which("fusermount3") is None:
        raise CannotError("there is no fusermount3 (package fuse3)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textdiffusion" / f"gcsfuse-{VERSION}"
    if not (cache / "gcsfuse").exists():
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            raise CannotError("there is no Go to build it with")
        print(f"building gcsfuse {VERSION} into {cache} (minutes, once) ...", flush=True)
        environment = {**os.environ, "GOBIN": str(cache), "CGO_ENABLED": "0"}
        built = subprocess.run([go, "install", f"{MODULE}@{VERSION}"], env=environment, capture_output=True, text=True)
        if built.returncode != 0:
            raise CannotError(f"it cannot be built: {' '.join(built.stderr.split())[-300:]}")
    return cache / "gcsfuse"


@contextmanager
def mounted(program: Path, gcs: GcsServer, place: Path, log: Path) -> Iterator[None]:
    """The bucket at `place`.

    Raises:
        CannotError: it cannot be mounted.
    """
    place.mkdir(parents=True)
    who = ["-o", "allow_other", "--uid", str(USER), "--gid", str(USER)] if os.geteuid() == 0 else []
    server = ["--custom-endpoint", f"{gcs.url}/storage/v1/", "--anonymous-access", "--enable-hns=false"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(program), "--foreground", *server, *who, BUCKET, str(place)], stdout=stream, stderr=stream
        )
    try:
        for _ in range(200):
            if os.path.ismount(place) or process.poll() is not None:
                break
            time.sleep(0.1)
        if not os.path.ismount(place):
            raise CannotError(f"it does not mount: {' '.join(log.read_text(errors='replace').split())[-300:]}")
        yield
    finally:
        subprocess.run(["fusermount3", "-uz", str(place)], capture_output=True)
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def refused_rename(folder: Path) -> str:
    """What the system says to a rename of a folder with a file in it."""
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "file").write_text("x")
    try:
        (folder / "old").rename(folder / "new")
    except OSError as error:
        return str(error.strerror)
    return ""


def main() -> int:
    """Runs the pipeline; 0 if every step ended well, 2 if gcsfuse cannot be tried here."""
    from textdiffusion.cli.app import main as command

    with tempfile.TemporaryDirectory(prefix="gcsfuse-") as name, GcsServer() as gcs:
        folder = Path(name)
        folder.chmod(0o711)
        try:
            program = installed()
            image = {"TEXTDIFFUSION_CODE_VERSION": "0123456789abcdef0123456789abcdef01234567"}
            with VertexServer(gcs, environment=image, preload=PRELOAD, mount=f"{folder}/gcs/") as server:
                cloud = make_cloud(gcs, server)
                with mounted(program, gcs, folder / "gcs" / BUCKET, folder / "log"):
                    shown = subprocess.run([str(program), "--version"], capture_output=True, text=True).stdout.strip()
                    kind = next(line for line in Path("/proc/mounts").read_text().splitlines() if name in line)
                    print(f"{shown}; module {VERSION}\n{kind.replace(name, '')}")
                    print(f"rename of a folder: {refused_rename(folder / 'gcs' / BUCKET / 'probe') or 'done'}")
                    (folder / "small-digits.yaml").write_text(JOB)
                    with mock.patch.dict(os.environ, cloud.environment), chdir(folder):
                        try:
                            command(["deploy", "small-digits.yaml", "--follow", "--interval", "0.5"])
                        except SystemExit as ended:
                            if ended.code:
                                print("\n".join(e["jsonPayload"]["message"] for e in server.logs.entries[-40:]))
                                return 1
                    names = [name for name in gcs.names(BUCKET, "images/") if not name.endswith("/")]
                    print(
                        f"{len(names)} objects written through the mount, by user {USER if not os.getuid() else 'own'}"
                    )
        except CannotError as error:
            print(f"gcsfuse is not tried: {error}")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
