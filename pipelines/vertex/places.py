"""The account, network, key and TensorBoard instance that a run is given: each of the right form, and there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.findings import Finding
from pipelines.vertex.client import Vertex

_FORMS = {
    "network": (r"projects/\d+/global/networks/[^/\s]+", "projects/NUMBER/global/networks/NAME"),
    "encryption_key": (
        r"projects/[^/\s]+/locations/([^/\s]+)/keyRings/[^/\s]+/cryptoKeys/[^/\s]+",
        "projects/P/locations/L/keyRings/R/cryptoKeys/K",
    ),
    "tensorboard": (
        r"projects/[^/\s]+/locations/([^/\s]+)/tensorboards/\d+",
        "projects/NUMBER/locations/REGION/tensorboards/NUMBER",
    ),
}


def form_problems(vertex: Vertex, spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Settings that are not names of what they should name, or name something in another region."""
    project = vertex.project
    values = {"network": project.network, "encryption_key": project.encryption_key, "tensorboard": _tensorboard(spec)}
    for name, value in values.items():
        if not value:
            continue
        pattern, form = _FORMS[name]
        match = re.fullmatch(pattern, value)
        if not match:
            yield Finding(f"{name}: found {value!r}; allowed: {form}")
        elif match.groups() and match[1] != project.region:
            yield Finding(f"{name}: {value} is in {match[1]}, the run in {project.region}")
    if values["tensorboard"] and not project.service_account:
        yield Finding("tensorboard: needs an account of its own to write; set service_account")


def account_findings(vertex: Vertex) -> Iterator[Finding]:
    """The service account is one, and is there."""
    account, project = vertex.project.service_account, vertex.project.project
    if not account:
        yield Finding("service_account: none is set, so steps run as the Compute Engine default account, which can do"
                      " more than they need; see docs/vertex-setup.md", problem=False)  # fmt: skip
        return
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.gserviceaccount\.com", account):
        yield Finding(f"service_account: found {account!r}; allowed: NAME@PROJECT.iam.gserviceaccount.com")
        return
    code, _ = vertex.rest("iam.googleapis.com", "GET", f"/v1/projects/-/serviceAccounts/{account}")
    if code == 404:
        name = account.split("@")[0]
        yield Finding(f"service_account: {account} does not exist;"
                      f" create it with `gcloud iam service-accounts create {name} --project={project}`")  # fmt: skip
    elif code != 200:
        yield Finding(f"service_account: {account} could not be looked up (HTTP {code})", problem=False)


def tensorboard_findings(vertex: Vertex, spec: Mapping[str, Any]) -> Iterator[Finding]:
    """The TensorBoard instance is there."""
    from google.api_core.exceptions import GoogleAPICallError, NotFound

    name = _tensorboard(spec)
    if not name:
        return
    try:
        vertex.tensorboards.get_tensorboard(name=name)
    except NotFound:
        create = f"gcloud ai tensorboards create --display-name=textdiffusion --region={vertex.project.region}"
        yield Finding(f"tensorboard: {name} does not exist; create one with `{create} --project="
                      f"{vertex.project.project}` and set its name")  # fmt: skip
    except GoogleAPICallError as error:
        yield Finding(f"tensorboard: {name} could not be looked up: {error.message}", problem=False)


def _tensorboard(spec: Mapping[str, Any]) -> str:
    """The instance that the custom jobs of a compiled pipeline write to; empty if none."""
    for component in spec["components"].values():
        given = component.get("inputDefinitions", {}).get("parameters", {}).get("tensorboard", {}).get("defaultValue")
        if given:
            return str(given)
    return ""
