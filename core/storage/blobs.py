"""Blobs of Azure, made or replaced only if nobody else did; what Azure keeps for a blob is its ETag, as with S3.

https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations.
adlfs hands no condition on, so its client is asked.
"""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from core.storage import remote
from core.storage.etags import Stored, unless_replaced
from core.storage.faults import with_retries


def look(uri: str) -> Stored | None:
    """The object; None if it is not there.

    Raises:
        StorageError: the store does not answer.
    """
    from fsspec.asyn import sync

    fs, path = remote.filesystem(uri)
    container, _, key = path.partition("/")
    dates: list[str] = []

    async def ask() -> tuple[bytes, str, datetime]:
        async with fs.service_client.get_blob_client(container, key) as blob:
            stream = await blob.download_blob(
                raw_response_hook=lambda answer: dates.append(answer.http_response.headers["Date"])
            )
            return await stream.readall(), stream.properties.etag, stream.properties.last_modified

    try:
        data, tag, written = with_retries(lambda: sync(fs.loop, ask), uri, "read")
    except FileNotFoundError:
        return None
    return Stored(data, tag, max(0.0, (parsedate_to_datetime(dates[-1]) - written).total_seconds()))


def replace(uri: str, data: bytes, tag: str) -> str | None:
    """As `etags.replace`: writes `data` over the object with that ETag; the new one, None if another is there now.

    Raises:
        StorageError: it cannot be written.
    """
    from azure.core import MatchConditions
    from fsspec.asyn import sync

    fs, path = remote.filesystem(uri)
    container, _, key = path.partition("/")
    condition: dict[str, Any] = {"etag": tag, "match_condition": MatchConditions.IfNotModified} if tag else {}

    async def upload() -> str:
        async with fs.service_client.get_blob_client(container, key) as blob:
            # overwrite=False sends `If-None-Match: *`
            answer = await blob.upload_blob(data, overwrite=bool(tag), validate_content=True, **condition)
            return str(answer["etag"])

    return unless_replaced(lambda: sync(fs.loop, upload), uri, data, look)
