"""Building the image in the project by Cloud Build, with the rights that docs/vertex-setup.md gives and no more."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from core.errors import UserError
from pipelines.settings import Settings

CONFIG = "containers/cloudbuild.yaml"


def build_command(settings: Settings, image: str, *, revision: str, source: str, beam: bool = False) -> list[str]:
    """The gcloud command that builds and pushes `image`.

    gcloud's own defaults need more rights: it stages the source in a bucket PROJECT_cloudbuild, which it makes, and
    builds as the Compute Engine default account.

    Args:
        settings: name project, bucket and the account that builds.
        image: its name with registry and tag.
        revision: commit of the code.
        source: address of its repository.
        beam: build the one with Apache Beam too.

    Raises:
        UserError: project, bucket or build_account is not set.
    """
    project, account = settings.require("project"), settings.require("build_account")
    bucket = settings.require("bucket").removeprefix("gs://").rstrip("/")
    values = {"_IMAGE": image, "_REVISION": revision, "_SOURCE": source} | ({"_BEAM": "1"} if beam else {})
    return [
        *("gcloud", "builds", "submit", f"--project={project}", f"--config={CONFIG}"),
        f"--gcs-source-staging-dir=gs://{bucket}/build/source",
        f"--service-account=projects/{project}/serviceAccounts/{account}",
        "--substitutions=^|^" + "|".join(f"{name}={value}" for name, value in values.items()),
        ".",
    ]


def push(command: list[str], root: Path) -> int:
    """Runs a build in the folder of the code; its exit code.

    Raises:
        UserError: gcloud is not installed, or this is no clone of the repository.
    """
    if shutil.which(command[0]) is None:
        raise UserError("image --push needs gcloud: https://cloud.google.com/sdk/docs/install")
    if not (root / CONFIG).exists():
        raise UserError(f"image --push: this installation has no {CONFIG}; work in a clone of the repository")
    return subprocess.run(command, cwd=root, check=False).returncode
