"""What the project in the cloud has for runs, and the exact command that mends what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from core.errors import UserError
from pipelines.preflight import bucket_findings
from pipelines.regions import check_region
from pipelines.settings import Settings
from pipelines.vertex import Project, Vertex, one_line

Check = dict[str, Any]
APIS = (
    "aiplatform.googleapis.com",
    "storage.googleapis.com",
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "logging.googleapis.com",
    "iam.googleapis.com",
)
PERMISSIONS = {
    "aiplatform.pipelineJobs.create": "roles/aiplatform.user",
    "aiplatform.pipelineJobs.cancel": "roles/aiplatform.user",
    "aiplatform.schedules.create": "roles/aiplatform.user",
    "aiplatform.models.upload": "roles/aiplatform.user",
    "aiplatform.artifacts.list": "roles/aiplatform.user",
    "logging.logEntries.list": "roles/logging.viewer",
}
_CLIENTS = {"google-cloud-aiplatform": (1, 150), "google-cloud-pipeline-components": (2, 22), "gcsfs": (2026, 1)}


def checks(settings: Settings) -> Iterator[Check]:
    """Each check as {"check", "state": ok | missing | optional, "found", "mend"}, in the order of mending."""
    yield from (_client(name, least) for name, least in _CLIENTS.items())
    for name in ("project", "region", "bucket"):
        value = getattr(settings, name)
        yield _check(name, bool(value), value or "not set", f"echo '{name}: YOURS' >> textdiffusion.yaml")
    if not (settings.project and settings.region and settings.bucket):
        return
    vertex = Vertex(Project.of(settings))
    try:
        doubt = check_region(vertex.project.region)
        yield _check("region name", not doubt, doubt or vertex.project.region, "", needed=False)
        with one_line("credentials"):
            _ = vertex.credentials
    except UserError as error:
        yield _check("credentials", False, error, "gcloud auth application-default login")
        return
    yield _check("credentials", True, type(vertex.credentials).__name__, "")
    try:
        yield from _asked(vertex, settings)
    except UserError as error:
        yield _check("Google Cloud", False, error, "check the network, then run this again")


def _asked(vertex: Vertex, settings: Settings) -> Iterator[Check]:
    project = vertex.project
    code, answer = vertex.rest("cloudresourcemanager.googleapis.com", "GET", f"/v1/projects/{project.project}")
    number = answer.get("projectNumber", "")
    login = f"gcloud projects describe {project.project}"
    yield _check("project access", code == 200, f"number {number}" if code == 200 else f"HTTP {code}", login)
    for api in APIS:
        code, answer = vertex.rest(
            "serviceusage.googleapis.com", "GET", f"/v1/projects/{project.project}/services/{api}"
        )
        state = answer.get("state", f"HTTP {code}")
        mend = f"gcloud services enable {api} --project={project.project}"
        yield _check(api, state == "ENABLED", state.lower(), mend)
    path = f"/v1/projects/{project.project}:testIamPermissions"
    code, answer = vertex.rest(
        "cloudresourcemanager.googleapis.com", "POST", path, {"permissions": sorted(PERMISSIONS)}
    )
    held = set(answer.get("permissions", []))
    for permission, role in PERMISSIONS.items():
        mend = f"gcloud projects add-iam-policy-binding {project.project} --member=user:YOU --role={role}"
        yield _check(permission, permission in held, "granted" if permission in held else "denied", mend)
    findings = list(bucket_findings(vertex))
    text = "; ".join(finding.text for finding in findings) or f"gs://{project.bucket} in {project.region}, writable"
    bad = any(finding.problem for finding in findings)
    create = f"gcloud storage buckets create gs://{project.bucket} --project={project.project}"
    yield _check("bucket", not bad, text, f"{create} --location={project.region}")
    yield from _account(vertex)
    yield from _image(vertex, settings)
    yield _check("gcloud", shutil.which("gcloud") is not None, shutil.which("gcloud") or "not found",
                 "https://cloud.google.com/sdk/docs/install", needed=False)  # fmt: skip


def _account(vertex: Vertex) -> Iterator[Check]:
    account, project = vertex.project.service_account, vertex.project.project
    if not account:
        yield _check("service account", False, "none set: steps run as the Compute Engine default account",
                     f"echo 'service_account: pipelines@{project}.iam.gserviceaccount.com' >> textdiffusion.yaml",
                     needed=False)  # fmt: skip
        return
    code, _ = vertex.rest("iam.googleapis.com", "GET", f"/v1/projects/-/serviceAccounts/{account}")
    mend = f"gcloud iam service-accounts create {account.split('@')[0]} --project={project}"
    yield _check("service account", code == 200, account if code == 200 else f"{account}: HTTP {code}", mend)


def _image(vertex: Vertex, settings: Settings) -> Iterator[Check]:
    from pipelines.compile import image_name

    image = image_name(settings.image)
    host, _, rest = image.partition("/")
    if "." not in host:
        where = f"{vertex.project.region}-docker.pkg.dev/{vertex.project.project}/textdiffusion/textdiffusion"
        yield _check("image", False, f"{image} names no registry", f"echo 'image: {where}' >> textdiffusion.yaml")
        return
    name, _, tag = rest.rpartition("@") if "@" in rest else rest.rpartition(":")
    code, _ = vertex.rest(host, "GET", f"/v2/{name}/manifests/{tag}")
    yield _check("image", code == 200, image if code == 200 else f"{image}: HTTP {code}", "make image")


def _client(name: str, least: tuple[int, int]) -> Check:
    try:
        found = version(name)
    except PackageNotFoundError:
        return _check(name, False, "not installed", "make setup")
    good = tuple(int(part) for part in found.split(".")[:2]) >= least
    return _check(name, good, found, f"pip install '{name}>={least[0]}.{least[1]}'")


def _check(name: str, good: bool, found: object, mend: str, *, needed: bool = True) -> Check:
    state = "ok" if good else ("missing" if needed else "optional")
    return {"check": name, "state": state, "found": str(found), "mend": "" if good else mend}
