"""What the API server and the trainer's webhooks refuse of a TrainJob."""

from __future__ import annotations

import re
from typing import Any

_RESERVED = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}


class RefusedError(Exception):
    """An answer that is no success: its HTTP status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def admitted(body: dict[str, Any], *, strict: bool, unknown: tuple[str, ...] = ()) -> dict[str, Any]:
    """The object as it is kept. What the CRD does not know is dropped, unless the request asks for strict decoding.

    Args:
        body: the object.
        strict: whether it is refused then.
        unknown: fields of the specification that an older CRD does not know.

    Raises:
        RefusedError: 400 or 422.
    """
    check(body)
    spec = {key: value for key, value in body["spec"].items() if key not in unknown}
    if strict and spec != body["spec"]:
        raise RefusedError(400, f'strict decoding error: unknown field "spec.{unknown[0]}"')
    return {**body, "spec": spec}


def check(body: dict[str, Any]) -> None:
    """Raises RefusedError (422) for what the CRD or the trainer's webhooks refuse."""
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
    from pydantic import ValidationError

    try:
        known = TrainerV1alpha1TrainJob.from_dict(body).to_dict() == body
    except ValidationError as error:
        raise RefusedError(422, str(error.errors()[0])) from None
    spec, name = body["spec"], body["metadata"].get("name", "")
    patches = [patch["template"]["spec"]["template"]["spec"] for runtime in spec.get("runtimePatches", ())
               for patch in runtime["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]]  # fmt: skip
    names = [item["name"] for item in spec["trainer"]["env"]]
    rules = {
        "strict decoding error: unknown field": known,
        "metadata.name must match RFC 1035 DNS label format": bool(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)),
        "metadata.name must be no more than 63 characters": len(name) <= 63,
        "metadata.annotations: Invalid value": all(
            re.fullmatch(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", key)
            for key in body["metadata"].get("annotations", ())
        ),
        "spec.runtimeRef: not found": spec["runtimeRef"] == {"name": "torch-distributed"},
        "must be greater than or equal to 1": spec.get("activeDeadlineSeconds", 1) >= 1,
        "spec.trainer.env: must not have reserved envs": not _RESERVED & set(names),
        "spec.trainer.env: Duplicate value": len(names) == len(set(names)) <= 128,
        "spec.trainer.args: Too long": all(len(spec["trainer"].get(key, ())) <= 128 for key in ("args", "command")),
        "must not have envs for the node containers": all("env" not in c for pod in patches for c in pod["containers"]),
        "metadata.ownerReferences: uid must not be empty": all(
            owner["uid"] and owner["name"] for owner in body["metadata"].get("ownerReferences", ())
        ),
    }  # fmt: skip
    for words, kept in rules.items():
        if not kept:
            raise RefusedError(422, f"TrainJob.trainer.kubeflow.org {name!r} is invalid: {words}")
