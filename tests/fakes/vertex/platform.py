"""What a deployment asks of the rest of the platform: enabled APIs, permissions, service accounts, images, quota."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.fakes.vertex.errors import ServiceError, not_found


class PlatformService:
    """Service Usage, Resource Manager, IAM and Artifact Registry, each as far as a check needs it.

    Attributes are what a test changes to make a check fail.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.enabled = {
            "aiplatform.googleapis.com",
            "storage.googleapis.com",
            "artifactregistry.googleapis.com",
            "logging.googleapis.com",
            "cloudbuild.googleapis.com",
            "iam.googleapis.com",
            "compute.googleapis.com",
            "cloudresourcemanager.googleapis.com",
            "serviceusage.googleapis.com",
            "cloudquotas.googleapis.com",
        }
        self.denied: set[str] = set()
        self.accounts = {f"pipelines@{server.project}.iam.gserviceaccount.com"}
        self.images: set[str] = set()
        self.unreadable: set[str] = set()
        self.quota: dict[tuple[str, str], int] = server.jobs.quota

    def answer(self, verb: str, path: str, query: str, content: bytes, accept: str = "") -> dict[str, Any]:
        project = re.escape(self._server.project)
        if found := re.fullmatch(rf"/v1/projects/{project}/services/([\w.]+)", path):
            name = found[1]
            return {"name": path[4:], "state": "ENABLED" if name in self.enabled else "DISABLED"}
        if re.fullmatch(rf"/v[13]/projects/{project}:testIamPermissions", path):
            asked = json.loads(content)["permissions"]
            return {"permissions": [p for p in asked if p not in self.denied]}
        if re.fullmatch(rf"/v[13]/projects/{project}", path):
            return {
                "name": f"projects/{self._server.number}",
                "projectId": self._server.project,
                "projectNumber": self._server.number,
                "state": "ACTIVE",
            }
        if found := re.fullmatch(r"/v1/projects/[^/]+/serviceAccounts/([^/]+):testIamPermissions", path):
            if found[1] not in self.accounts:
                raise not_found(f"Service account {found[1]}")
            return {"permissions": [p for p in json.loads(content)["permissions"] if p not in self.denied]}
        if found := re.fullmatch(r"/v1/projects/[^/]+/serviceAccounts/([^/]+)", path):
            if found[1] not in self.accounts:
                raise not_found(f"Service account {found[1]}")
            return {"name": path[4:], "email": found[1]}
        if found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            if f"{found[1]}:{found[2]}" in self.unreadable:
                raise ServiceError("PERMISSION_DENIED", "Permission 'artifactregistry.repositories.downloadArtifacts'")
            # An index is not handed to a client that does not say it takes one.
            if f"{found[1]}:{found[2]}" not in self.images or "oci.image.index" not in accept:
                raise not_found(f"{found[1]}:{found[2]}")
            return {"schemaVersion": 2}
        if re.fullmatch(rf"/v1/projects/{project}/locations/global/services/[\w.]+/quotaInfos", path):
            return {
                "quotaInfos": [
                    {
                        "metric": metric,
                        "dimensionsInfos": [{"applicableLocations": [region], "details": {"value": str(value)}}],
                    }
                    for (region, metric), value in self.quota.items()
                ]
            }
        raise ServiceError("UNIMPLEMENTED", f"{verb} {path} is not served here.")
