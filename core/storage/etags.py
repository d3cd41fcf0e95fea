"""Objects of S3 and what speaks its language (MinIO, Ceph, SeaweedFS), made or replaced only if nobody else did.

A PUT with `If-None-Match: *` makes an object that is not there, one with `If-Match` replaces what was seen:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html. What S3 keeps for an object is its ETag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from core.storage import remote
from core.storage.faults import StorageError, with_retries

ABSENT = ""
"""The ETag of an object that is not there."""
_OTHER = ("PreconditionFailed", "412")


@dataclass(frozen=True)
class Stored:
    """An object's content, its ETag or generation, and how long ago it was written, in seconds of the store's clock."""

    data: bytes
    generation: str
    age: float


def look(uri: str) -> Stored | None:
    """The object; None if it is not there.

    Raises:
        StorageError: the store does not answer.
    """
    from fsspec.asyn import sync

    fs, path = remote.filesystem(uri)
    bucket, _, key = path.partition("/")

    async def ask() -> tuple[bytes, str, datetime, str]:
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key)
        async with answer["Body"] as body:
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            return await body.read(), answer["ETag"], answer["LastModified"], headers["date"]

    try:
        data, tag, written, date = with_retries(lambda: sync(fs.loop, ask), uri, "read")
    except FileNotFoundError:
        return None
    return Stored(data, tag, max(0.0, (parsedate_to_datetime(date) - written).total_seconds()))


def replace(uri: str, data: bytes, tag: str) -> str | None:
    """Writes `data` over the object with that ETag; the new one, None if another one is there now.

    Args:
        uri: the object.
        data: differs from what any other writer would write. When the answer to an upload is lost, trying again
            meets the new object: only the content tells whose it is.
        tag: what the caller has seen; `ABSENT`: nothing.

    Raises:
        StorageError: it cannot be written.
    """
    fs, path = remote.filesystem(uri)
    bucket, _, key = path.partition("/")
    condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}

    def upload() -> Any:
        try:
            return fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        except FileNotFoundError as error:
            if tag and "NoSuchBucket" not in str(error.__cause__):
                raise FileExistsError from None  # it was removed meanwhile
            raise
        except OSError as error:
            if _code(error) in _OTHER:
                raise FileExistsError from None
            raise

    return unless_replaced(lambda: str(upload()["ETag"]), uri, data, look)


def unless_replaced(
    upload: Callable[[], str], uri: str, data: bytes, look: Callable[[str], Stored | None]
) -> str | None:
    """What `upload` returns; where it raises FileExistsError, what `look` sees if that is `data`, else None.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        return with_retries(upload, uri, "written")
    except FileNotFoundError:
        raise StorageError(f"{uri}: cannot be written: there is no such bucket") from None
    except FileExistsError:
        now = look(uri)
        return now.generation if now is not None and now.data == data else None


def _code(error: OSError) -> str:
    answer = getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
