"""Objects with their generation: replaced only if nobody else has replaced them meanwhile.

Google Cloud Storage counts generations, https://cloud.google.com/storage/docs/request-preconditions; with S3 and Azure
the ETag stands for one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import cast

from core.storage import blobs, etags, remote
from core.storage.etags import Stored
from core.storage.faults import with_retries

ABSENT = "0"
"""The generation of an object that is not there."""
_PART = "==textdiffusion=="


def _tagged(uri: str) -> ModuleType | None:
    """What looks and replaces by ETags, where the storage of `uri` has them."""
    return {"s3": etags, "abfs": blobs}.get(remote.known_scheme(uri).implementation)


def look(uri: str) -> Stored | None:
    """The object, None if there is none.

    Raises:
        StorageError: the store does not answer.
    """
    if tagged := _tagged(uri):
        return cast(Stored | None, tagged.look(uri))
    while True:
        try:
            headers, body = _get(uri)
        except FileNotFoundError:
            return None
        facts = json.loads(body)
        generation = str(facts["generation"])
        try:
            _, data = _get(uri, alt="media", generation=generation)
        except FileNotFoundError:  # replaced between the two requests
            continue
        written = datetime.fromisoformat(facts["updated"].replace("Z", "+00:00"))
        now = parsedate_to_datetime(headers["Date"])
        return Stored(data, generation, max(0.0, (now - written).total_seconds()))


def _get(uri: str, **options: str) -> tuple[Mapping[str, str], bytes]:
    fs, path = remote.filesystem(uri)
    bucket, _, key = path.partition("/")

    def ask() -> tuple[Mapping[str, str], bytes]:
        headers, body = fs.call("GET", "b/{}/o/{}", bucket, key, **options)
        return headers, body

    return with_retries(ask, uri, "read")


def replace(uri: str, data: bytes, generation: str) -> str | None:
    """Writes `data` over that generation of the object; the new generation, None if another one is there now.

    Args:
        uri: the object.
        data: differs from what any other writer would write. When the answer to an upload is lost, trying again
            meets the new generation: only the content tells whose it is.
        generation: what the caller has seen; `ABSENT`: nothing.

    Raises:
        StorageError: it cannot be written.
    """
    if tagged := _tagged(uri):
        return cast(str | None, tagged.replace(uri, data, etags.ABSENT if generation == ABSENT else generation))
    fs, path = remote.filesystem(uri)
    bucket, _, key = path.partition("/")
    body = b"\r\n".join(
        [
            f"--{_PART}\r\nContent-Type: application/json; charset=UTF-8\r\n".encode(),
            json.dumps({"name": key}).encode(),
            f"--{_PART}\r\nContent-Type: application/json\r\n".encode(),
            data,
            f"--{_PART}--".encode(),
        ]
    )

    def upload() -> str:
        answer = fs.call(
            "POST",
            f"{fs._location}/upload/storage/v1/b/{bucket}/o",
            uploadType="multipart",
            ifGenerationMatch=generation,
            headers={"Content-Type": f'multipart/related; boundary="{_PART}"'},
            data=body,
            json_out=True,
        )
        return str(answer["generation"])

    return etags.unless_replaced(upload, uri, data, look)
