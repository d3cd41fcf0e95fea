"""The bucket of a run: there, in its region, writable, and without rules that would stop the run later."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from core.errors import UserError
from pipelines.findings import ME, Finding
from pipelines.vertex.client import Vertex, one_line


def bucket_findings(vertex: Vertex) -> Iterator[Finding]:
    """The bucket exists, lies in the run's region, has no retention policy, and can be written to and read from."""
    from google.api_core.exceptions import BadRequest, Forbidden, NotFound

    name, project = vertex.project.bucket, vertex.project
    create = f"gcloud storage buckets create gs://{{}} --project={project.project} --location={project.region}"
    create += " --uniform-bucket-level-access --enable-hierarchical-namespace"
    try:
        with one_line(f"bucket {name}"):
            try:
                bucket = vertex.bucket(name)
                bucket.reload(timeout=20)
            except NotFound:
                mend = create.format(name)
                yield Finding(f"bucket: gs://{name} does not exist; create it with `{mend}`", mend=mend)
                return
            except BadRequest as error:
                if "requester pays" not in str(error.message).lower():
                    raise
                yield Finding(f"bucket: the owner of gs://{name} lets the requester pay, and nobody is named who does;"
                              " set billing_project",
                              mend="echo 'billing_project: YOURS' >> textdiffusion.yaml")  # fmt: skip
                return
            except Forbidden:
                yield Finding(f"bucket: gs://{name} may not be read by this account, or belongs to another project",
                              mend=f"{_grant(name)}legacyBucketReader")  # fmt: skip
                return
            yield from _elsewhere(name, bucket, project.region, create)
            kept = list(_kept(name, bucket))
            yield from kept
            if kept:  # a probe could not be removed again
                return
            if bucket.requester_pays:
                yield Finding(f"bucket: the owner of gs://{name} lets the requester pay: {project.billing_project} pays"
                              " for this command and for steps, but Vertex AI mounts the bucket without naming it",
                              problem=False)  # fmt: skip
            yield from _unwritable(name, bucket)
    except UserError as error:
        yield Finding(str(error))


def _grant(name: str) -> str:
    return f"gcloud storage buckets add-iam-policy-binding gs://{name} --member={ME} --role=roles/storage."


def _elsewhere(name: str, bucket: Any, region: str, create: str) -> Iterator[Finding]:
    place = (bucket.location or "").lower()
    if place and place != region:
        several = bucket.location_type in ("multi-region", "dual-region")
        other = f"{name}-{region}"
        yield Finding(f"bucket: gs://{name} is in {place}, the run in {region};"
                      f" set region: {place} or another bucket", problem=not several,
                      mend=f"{create.format(other)} && sed -i 's/^bucket:.*/bucket: {other}/'"
                      " textdiffusion.yaml")  # fmt: skip


def _unwritable(name: str, bucket: Any) -> Iterator[Finding]:
    from google.api_core.exceptions import GoogleAPICallError

    probe = bucket.blob(f".textdiffusion-preflight-{uuid.uuid4().hex}")
    try:
        probe.upload_from_string(b"", timeout=20)
        probe.delete(timeout=20)
    except GoogleAPICallError as error:
        yield Finding(f"bucket: gs://{name} cannot be written to by this account: {error.message}",
                      mend=f"{_grant(name)}objectUser")  # fmt: skip


def _kept(name: str, bucket: Any) -> Iterator[Finding]:
    """Rules by which objects may not be replaced or removed, as checkpoints and the champion's pointer must be."""
    if bucket.retention_period:
        days = f"{bucket.retention_period / 86_400:g} days"
        lock = ", locked" if bucket.retention_policy_locked else ""
        yield Finding(f"bucket: gs://{name} keeps every object for {days} (retention policy{lock}), so that checkpoints"
                      " and the champion could not be replaced; use a bucket without one",
                      mend=f"gcloud storage buckets update gs://{name} --clear-retention-period")  # fmt: skip
    if bucket.default_event_based_hold:
        yield Finding(f"bucket: gs://{name} holds every object (event-based hold), so that checkpoints and the champion"
                      " could not be replaced; use a bucket without it",
                      mend=f"gcloud storage buckets update gs://{name} --no-default-event-based-hold")  # fmt: skip
