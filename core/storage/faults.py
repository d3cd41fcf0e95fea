"""Faults of storage: passing ones are tried again after growing, random pauses; what stays becomes one clear line."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from core.errors import UserError

log = logging.getLogger(__name__)
ATTEMPTS, LONGEST_PAUSE = 4, 20.0  # of whole operations, seconds; gcsfs tries each request six times by itself
_LIBRARIES = ("gcsfs", "s3fs", "botocore", "aiohttp", "google", "requests", "fsspec")  # whose errors are about storage
_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG,
          errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ELOOP, errno.ESTALE,
          errno.EBUSY, errno.ETXTBSY, errno.ENOTEMPTY, errno.EINVAL, errno.ENODEV, errno.ENXIO, errno.ENOTCONN,
          errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}  # fmt: skip
_PASSING = (408, 429)
_SHOWN = 300  # characters of a path

T = TypeVar("T")


class StorageError(UserError):
    """Storage that is full, refuses or cannot be reached. What was stored before is as it was."""


class UnconfirmedError(StorageError):
    """What was to be written is there, but the disk did not say that it will still be after a power cut."""


def with_retries(operation: Callable[[], T], uri: str | Path, what: str) -> T:
    """The result of `operation` on remote storage, which is done again from its beginning when a passing fault ends it.

    Args:
        operation: may be done twice.
        uri: what it works on, for the error.
        what: what it does: read, written, listed, removed.

    Raises:
        FileNotFoundError, FileExistsError: these are answers, not faults.
        StorageError: it failed for good, or `ATTEMPTS` times.
    """
    again = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=1, max=LONGEST_PAUSE),
        retry=retry_if_exception(passing),
        before_sleep=lambda state: log.warning("%s: %s; trying again", uri, _line(state.outcome)),
        reraise=True,
    )
    try:
        return again(_in_pythons_words, operation)
    except (FileNotFoundError, FileExistsError, UserError):
        raise
    except Exception as error:
        if not _about_storage(error):
            raise
        raise StorageError(f"{uri}: cannot be {what}: {_reason(error)}") from None


def _in_pythons_words(operation: Callable[[], T]) -> T:
    """What `operation` returns. Where adlfs lets an error of Azure's through, it becomes the one of Python's that other
    file systems raise."""
    try:
        return operation()
    except Exception as error:
        library = sys.modules.get("azure.core.exceptions")
        if library is None:
            raise
        told = error if isinstance(error, library.AzureError) else error.__cause__  # of a removal: a RuntimeError
        if not isinstance(told, library.AzureError):
            raise
        code = getattr(told, "error_code", None)
        said = str(getattr(code, "value", code) or "") or str(told).partition("\n")[0] or type(told).__name__
        status = int(getattr(told, "status_code", None) or 0)
        if type(told).__name__ == "AzureSigningError":
            raise OSError(f"the account's key cannot sign: {said}") from None
        if isinstance(told, library.ResourceNotFoundError):
            raise FileNotFoundError(said) from None
        if isinstance(told, library.ResourceExistsError | library.ResourceModifiedError):
            raise FileExistsError(said) from None
        lost = library.ServiceRequestError | library.ServiceResponseError | library.IncompleteReadError
        if isinstance(told, lost) or status in _PASSING or status >= 500:
            raise ConnectionError(f"{status} {said}" if status else said) from None
        raise OSError(f"{status} {said}" if status else said) from None


def passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later: resets, timeouts, 408, 429 and 5xx."""
    if isinstance(error, UserError):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if type(error).__name__ == "ChecksumError":  # what arrived is not what was sent
        return True
    retry = sys.modules.get("gcsfs.retry")
    return _of_s3(error) or (retry is not None and bool(retry.is_retriable(error)))


def _of_s3(error: BaseException) -> bool:
    """Whether an error of s3fs is a passing one; it makes Python's errors of the service's, which are their causes."""
    library = sys.modules.get("botocore.exceptions")
    if library is None:
        return False
    lost = library.HTTPClientError | library.IncompleteReadError | library.ConnectionError
    if isinstance(error, library.SSLError):  # a wrong certificate stays wrong
        return False
    if isinstance(error, lost) or "ResponseParser" in str(type(error)):
        return True
    answer = getattr(error.__cause__, "response", None) or {}
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return status in (*_PASSING, 409) or status >= 500


@contextmanager
def as_storage_error(uri: str | Path | None, what: str) -> Iterator[None]:
    """A local disk that is full, refuses or is gone becomes a `StorageError`; other errors stay what they are.

    Raises:
        StorageError: names `uri`, or the file that the system named, and what the system said.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _PLACE:
            raise
        raise StorageError(refusal(error, uri, what)) from None


@contextmanager
def every_refusal() -> Iterator[None]:
    """Around all of a command or step: any error of the system that names a file, or is about a disk, is one line.

    Raises:
        StorageError: names the file, and what the system said.
    """
    try:
        yield
    except OSError as error:
        named = error.filename is not None and error.strerror is not None
        if isinstance(error, ConnectionError) or not (named or error.errno in _PLACE):
            raise
        raise StorageError(refusal(error)) from None


def refusal(error: OSError, uri: str | Path | None = None, what: str = "used") -> str:
    """What the system refused, in one line: the file, and its words."""
    place = str(uri or error.filename2 or error.filename or "a file")
    shown = place if len(place) <= _SHOWN else f"{place[:_SHOWN]}..."
    return f"{shown}: cannot be {what}: {error.strerror or error}"


def _about_storage(error: Exception) -> bool:
    return isinstance(error, OSError | ValueError) or type(error).__module__.split(".")[0] in _LIBRARIES


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    if "requester pays" in text.lower():
        return "its owner lets the requester pay: write `billing_project: PROJECT` into textdiffusion.yaml"
    kind = type(error).__name__
    tried = f" ({ATTEMPTS} attempts)" if passing(error) else ""
    return f"{text or kind}{tried}"


def _line(outcome: object) -> str:
    error = outcome.exception() if outcome is not None else None  # type: ignore[attr-defined]
    return _reason(error).removesuffix(f" ({ATTEMPTS} attempts)") if error else "failed"
