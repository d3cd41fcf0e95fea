"""Remote storage (the schemes of core/schemes.py): every operation whole, tried again, or one clear line."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import re
from collections.abc import Callable, Mapping
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.schemes import Scheme, scheme_of
from core.storage.faults import StorageError, with_retries

CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
AZURE = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_CONNECTION_STRING")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
PAYER = "TEXTDIFFUSION_BILLING_PROJECT"
"""Environment variable: the project that pays for requests to buckets whose owner lets the requester pay."""


def filesystem(uri: str | Path) -> tuple[Any, str]:
    """The file system of `uri`, forgetting what it remembered of names that other processes may change; the path."""
    # gcsfs probes for hierarchical namespaces over gRPC at its first write; against an emulator that hangs.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # its tracebacks; what matters is raised, and said in a line
    for library in ("botocore", "aiobotocore", "azure"):  # they say each time where they have their settings from
        logging.getLogger(library).setLevel(logging.WARNING)
    scheme = known_scheme(uri)
    options = {"gcs": _of_google, "abfs": lambda: _of_azure(str(uri))}.get(scheme.implementation, dict)()
    try:
        fs = fsspec.filesystem(scheme.implementation, **{**scheme.options, **options})
    except Exception as error:
        if "token" in options and not isinstance(error, ImportError):
            raise UserError(refused_credentials(error)) from None
        if isinstance(error, ValueError | ImportError):
            raise UserError(f"{uri}: {error}") from None
        raise
    fs.invalidate_cache()
    if scheme.implementation == "s3":
        fs.retries = 1
        return fs, str(uri).partition("://")[2].rstrip("/")
    if scheme.implementation == "abfs":
        return _without_retries(fs, str(uri)), fs._strip_protocol(str(uri)).rstrip("/")
    return fs, fs._strip_protocol(str(uri))


def known_scheme(uri: str | Path) -> Scheme:
    """The row of the table of schemes that a URI names.

    Raises:
        UserError: there is none.
    """
    try:
        return scheme_of(uri)
    except ValueError as error:
        raise UserError(f"{uri}: {error}") from None


def _of_google() -> dict[str, Any]:
    """Options of gcsfs: what arrives is compared with its hash, proxies of the environment are used, who pays."""
    options: dict[str, Any] = {"consistency": "md5", "session_kwargs": {"trust_env": True}}
    if payer := os.environ.get(PAYER):
        options["requester_pays"] = payer
    if os.environ.get(CREDENTIALS) and not os.environ.get("STORAGE_EMULATOR_HOST"):
        options["token"] = "google_default"  # else gcsfs goes on as nobody when the file cannot be used
    return options


def _of_azure(uri: str) -> dict[str, Any]:
    """Options of adlfs: the account that a URI names, else that of the environment, which has the credentials too.

    Raises:
        UserError: neither names one.
    """
    host, name = _azure_host(uri), os.environ.get(AZURE[0], "")
    if host and not ("." in host and _ACCOUNT.fullmatch(host.partition(".")[0])):
        raise UserError(f"{uri}: {host} is no account with its domain, as in ACCOUNT.dfs.core.windows.net")
    if name and not _ACCOUNT.fullmatch(name):
        raise UserError(f"{AZURE[0]}={name}: is no account's name, which has 3 to 24 small letters and digits")
    if host:
        return {"account_name": host.partition(".")[0], "account_host": host.replace(".dfs.", ".blob.", 1)}
    if not any(os.environ.get(name) for name in AZURE):
        raise UserError(f"{uri}: names no storage account; set {' or '.join(AZURE)}, or write"
                        " abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/...")  # fmt: skip
    return {}


def _azure_host(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0].partition("@")[2]


def _without_retries(fs: Any, uri: str) -> Any:
    """A file system of adlfs whose client asks once, as `with_retries` asks again, and sooner.

    Raises:
        UserError: the environment's connection string, which adlfs prefers, is of another account than the URI's.
    """
    client, named = fs.service_client, _azure_host(uri).partition(".")[0]
    if named and client.account_name != named:
        raise UserError(f"{uri}: {AZURE[1]} is of the account {client.account_name}; unset it, or name its account")
    client._config.retry_policy.total_retries = 0
    return fs


def refused_credentials(error: BaseException) -> str:
    """Why the file that `CREDENTIALS` names cannot be used, in one line; `error` is what the library raised."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
    return (
        f"{CREDENTIALS}={os.environ.get(CREDENTIALS, '')}: {reason.rstrip('.')}; name a JSON file of credentials, or"
        " unset it and run `gcloud auth application-default login`"
    )


class Reader(io.RawIOBase):
    """A remote file whose every read survives passing faults."""

    def __init__(self, stream: Any, uri: str) -> None:
        self._stream, self._uri = stream, uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        position = self._stream.tell()

        def read() -> bytes:
            self._stream.seek(position)
            return bytes(self._stream.read(len(buffer)))

        data = with_retries(read, self._uri, "read")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def read(uri: str | Path, limit: int | None) -> bytes:
    """The whole content.

    Raises:
        FileNotFoundError: there is no such object.
        UserError: it is longer than `limit` bytes.
    """
    fs, path = filesystem(uri)

    def whole() -> bytes:
        facts = fs.info(path)
        if facts["type"] == "directory":
            raise FileNotFoundError(path)
        expected = int(facts["size"])
        if limit is not None and expected > limit:
            raise UserError(f"{uri}: larger than {limit} bytes")
        data = bytes(fs.cat_file(path))
        if len(data) != expected:
            raise ConnectionError(f"{len(data)} of {expected} bytes arrived")
        stated = md5(facts)
        if stated and hashlib.md5(data, usedforsecurity=False).digest() != stated:
            raise ConnectionError("what arrived is not what is stored: its MD5 differs")
        return data

    return with_retries(whole, uri, "read")


def md5(facts: Mapping[str, Any]) -> bytes:
    """The MD5 that Google's or Azure's store states of an object's content; empty if it states none, as for one made of
    parts. With S3 the library compares a checksum."""
    if text := facts.get("md5Hash"):
        return base64.b64decode(text)
    return bytes((facts.get("content_settings") or {}).get("content_md5") or b"")


def details(uri: str | Path) -> dict[str, dict[str, Any]]:
    """What the store says of each object below `uri` (size, md5Hash, etag, ...), by name; nothing is read.

    Raises:
        StorageError: the store does not answer.
    """
    fs, path = filesystem(uri)

    def listed() -> dict[str, dict[str, Any]]:
        found = fs.find(path, detail=True)
        return found if isinstance(found, dict) else {name: fs.info(name) for name in found}  # adlfs, of a file

    entries = with_retries(listed, uri, "listed")
    prefix = path.rstrip("/") + "/"
    return {name.removeprefix(prefix): facts for name, facts in sorted(entries.items())}


def written(operation: Callable[[], Any], uri: str | Path) -> None:
    """Does an upload.

    Raises:
        FileExistsError: it was to be made, and is there.
        StorageError: it failed.
    """
    try:
        with_retries(operation, uri, "written")
    except FileNotFoundError:
        raise StorageError(f"{uri}: cannot be written: there is no such bucket") from None


def put(uri: str | Path, data: bytes) -> None:
    """Writes an object, over what was there."""
    fs, path = filesystem(uri)
    options, kind = _checked(fs), guess_type(path)[0]  # without its kind browsers would save a page, not show it
    if kind and "gs" in fs.protocol:
        options["content_type"] = kind
    elif kind and "abfs" in fs.protocol:
        options["content_settings"] = {"content_type": kind}
    written(lambda: fs.pipe_file(path, data, **options), uri)


def _checked(fs: Any) -> dict[str, Any]:
    """Options of an upload by which the store compares what arrives with its hash; gcsfs and s3fs need none."""
    return {"validate_content": True} if "abfs" in fs.protocol else {}


def upload(source: Path, target: str) -> None:
    """Copies a local file to `target`."""
    fs, path = filesystem(target)
    written(lambda: fs.put_file(str(source), path, **_checked(fs)), target)  # where it breaks off, there is no object
