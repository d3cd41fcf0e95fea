"""Errors in the form the service sends them: an HTTP status and a `google.rpc.Status` as JSON."""

from __future__ import annotations

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "INTERNAL": 500,
}


class ServiceError(Exception):
    """A refusal by the service.

    Args:
        status: Canonical code name, e.g. `NOT_FOUND`.
        message: What the client is told.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    @property
    def http_status(self) -> int:
        return HTTP_STATUS[self.status]

    def to_json(self) -> dict[str, object]:
        return {"error": {"code": self.http_status, "message": self.message, "status": self.status}}


def invalid(message: str) -> ServiceError:
    return ServiceError("INVALID_ARGUMENT", message)


def not_found(name: str) -> ServiceError:
    return ServiceError("NOT_FOUND", f"{name} is not found.")
