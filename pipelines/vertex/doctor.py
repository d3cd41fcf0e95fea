"""What the project in the cloud has for runs, and the exact command that mends what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from components.step import BEAM_IMAGE
from core.errors import UserError
from pipelines import dataflow
from pipelines.findings import ME, Check, checked
from pipelines.settings import Settings
from pipelines.vertex.buckets import bucket_findings
from pipelines.vertex.client import Project, Vertex, one_line
from pipelines.vertex.preflight import image_status
from pipelines.vertex.regions import check_region

APIS = (
    "serviceusage.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "aiplatform.googleapis.com",
    "compute.googleapis.com",
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
    "aiplatform.endpoints.deploy": "roles/aiplatform.user",
    "aiplatform.batchPredictionJobs.create": "roles/aiplatform.user",
    "logging.logEntries.list": "roles/logging.viewer",
    "serviceusage.services.use": "roles/serviceusage.serviceUsageConsumer",
}
ACT_AS = "iam.serviceAccounts.actAs"
_REGIONS = "gcloud compute regions list --format='value(name)'"
_CLIENTS = {"google-cloud-aiplatform": (1, 150), "google-cloud-pipeline-components": (2, 22), "gcsfs": (2026, 1)}


def checks(settings: Settings) -> Iterator[Check]:
    """Each check as {"check", "state": ok | missing | optional, "found", "mend"}, in the order of mending."""
    yield from (_client(name, least) for name, least in _CLIENTS.items())
    for name in ("project", "region", "bucket"):
        value = getattr(settings, name)
        yield checked(name, bool(value), value or "not set", f"echo '{name}: YOURS' >> textdiffusion.yaml")
    if not (settings.project and settings.region and settings.bucket):
        return
    vertex = Vertex(Project.of(settings))
    try:
        doubt = check_region(vertex.project.region)
        yield checked("region name", not doubt, doubt or vertex.project.region, _REGIONS, needed=False)
    except UserError as error:
        yield checked("region name", False, error, _REGIONS)
        return
    try:
        with one_line("credentials"):
            _ = vertex.credentials
    except UserError as error:
        yield checked("credentials", False, error, "gcloud auth application-default login")
        return
    yield checked("credentials", True, type(vertex.credentials).__name__, "")
    try:
        yield from _asked(vertex, settings)
    except UserError as error:
        yield checked("Google Cloud", False, error, "check the network, then run this again")


def _asked(vertex: Vertex, settings: Settings) -> Iterator[Check]:
    project = vertex.project
    bind = f"gcloud projects add-iam-policy-binding {project.project} --member={ME} --role="
    code, answer = vertex.rest("cloudresourcemanager.googleapis.com", "GET", f"/v1/projects/{project.project}")
    off = "has not been used" in str(answer) or "SERVICE_DISABLED" in str(answer)
    enable = f"gcloud services enable cloudresourcemanager.googleapis.com --project={project.project}"
    seen = f"number {answer.get('projectNumber', '')}" if code == 200 else f"HTTP {code}"
    yield checked("project access", code == 200, seen, enable if off else f"{bind}roles/browser")
    apis = APIS + (dataflow.APIS if settings.dataflow else ())
    rights = PERMISSIONS | (dataflow.PERMISSIONS if settings.dataflow else {})
    for api in apis:
        code, answer = vertex.rest(
            "serviceusage.googleapis.com", "GET", f"/v1/projects/{project.project}/services/{api}"
        )
        state = answer.get("state", f"HTTP {code}")
        mend = f"gcloud services enable {api} --project={project.project}"
        yield checked(api, state == "ENABLED", state.lower(), mend)
    path = f"/v1/projects/{project.project}:testIamPermissions"
    code, answer = vertex.rest("cloudresourcemanager.googleapis.com", "POST", path, {"permissions": sorted(rights)})
    held = set(answer.get("permissions", []))
    for permission, role in rights.items():
        yield checked(permission, permission in held, "granted" if permission in held else "denied", f"{bind}{role}")
    findings = list(bucket_findings(vertex))
    text = "; ".join(finding.text for finding in findings) or f"gs://{project.bucket} in {project.region}, writable"
    bad = [finding for finding in findings if finding.problem]
    yield checked("bucket", not bad, text, bad[0].mend if bad else "")
    yield from _account(vertex)
    yield from _build_account(vertex, settings)
    yield from _image(vertex, settings)
    yield checked("gcloud", shutil.which("gcloud") is not None, shutil.which("gcloud") or "not found",
                 "https://cloud.google.com/sdk/docs/install", needed=False)  # fmt: skip


def _account(vertex: Vertex) -> Iterator[Check]:
    account, project = vertex.project.service_account, vertex.project.project
    if not account:
        yield checked("service account", False, "none set: steps run as the Compute Engine default account",
                     f"echo 'service_account: pipelines@{project}.iam.gserviceaccount.com' >> textdiffusion.yaml",
                     needed=False)  # fmt: skip
        return
    path = f"/v1/projects/-/serviceAccounts/{account}"
    code, _ = vertex.rest("iam.googleapis.com", "GET", path)
    create = f"gcloud iam service-accounts create {account.split('@')[0]} --project={project}"
    grant = f"gcloud iam service-accounts add-iam-policy-binding {account} --project={project} --member={ME}"
    grant += " --role=roles/iam.serviceAccountUser"
    seen = account if code == 200 else f"{account}: HTTP {code}"
    yield checked("service account", code == 200, seen, create if code == 404 else grant)
    if code == 200:
        code, answer = vertex.rest(
            "iam.googleapis.com", "POST", f"{path}:testIamPermissions", {"permissions": [ACT_AS]}
        )
        held = ACT_AS in answer.get("permissions", [])
        yield checked(ACT_AS, held, "granted" if held else "denied", grant)


def _build_account(vertex: Vertex, settings: Settings) -> Iterator[Check]:
    """Only `make push` needs it; an image may come from elsewhere."""
    account, project = settings.build_account, vertex.project.project
    if not account:
        mend = f"echo 'build_account: build@{project}.iam.gserviceaccount.com' >> textdiffusion.yaml"
        yield checked("build account", False, "none set: `make push` has no account to build as", mend, needed=False)
        return
    code, _ = vertex.rest("iam.googleapis.com", "GET", f"/v1/projects/-/serviceAccounts/{account}")
    create = f"gcloud iam service-accounts create {account.split('@')[0]} --project={project}"
    seen = account if code == 200 else f"{account}: HTTP {code}"
    yield checked("build account", code == 200, seen, create, needed=False)


def _image(vertex: Vertex, settings: Settings) -> Iterator[Check]:
    from pipelines.compile import image_name

    image = image_name(settings.image)
    if "." not in image.partition("/")[0]:
        where = f"{vertex.project.region}-docker.pkg.dev/{vertex.project.project}/textdiffusion/textdiffusion"
        yield checked("image", False, f"{image} names no registry", f"echo 'image: {where}' >> textdiffusion.yaml")
        return
    for name, mend in ((image, "make push"), (f"{image}{BEAM_IMAGE}", "make push BEAM=1")):
        if name == image or settings.dataflow:
            code = image_status(vertex, name)
            seen = name if code == 200 else f"{name}: HTTP {code}"
            mend = _read_access(vertex, name) if code in (401, 403) else mend
            yield checked("image" if name == image else "image with Beam", code == 200, seen, mend)


def _read_access(vertex: Vertex, image: str) -> str:
    host, _, *rest = image.split("/")
    return (
        f"gcloud artifacts repositories add-iam-policy-binding {rest[0]} --project={vertex.project.project}"
        f" --location={host.removesuffix('-docker.pkg.dev')} --member={ME} --role=roles/artifactregistry.reader"
    )


def _client(name: str, least: tuple[int, int]) -> Check:
    try:
        installed = version(name)
    except PackageNotFoundError:
        return checked(name, False, "not installed", "make setup")
    good = tuple(int(part) for part in installed.split(".")[:2]) >= least
    return checked(name, good, installed, f".venv/bin/pip install '{name}>={least[0]}.{least[1]}'")
