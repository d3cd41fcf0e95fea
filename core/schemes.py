"""Where files may be: on this machine, or behind one of the schemes of one table. Anything else is refused unasked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://[^/]")


@dataclass(frozen=True)
class Scheme:
    """A kind of remote storage: the fsspec implementation that speaks it, and the options it is opened with."""

    implementation: str
    options: Mapping[str, Any] = field(default_factory=dict)


_GOOGLE = Scheme("gcs", {"consistency": "md5"})
_S3 = Scheme("s3", {"use_listings_cache": False, "config_kwargs": {"retries": {"total_max_attempts": 1}}})
"""Of AWS, or wherever AWS_ENDPOINT_URL says; needs the package s3fs. Faults are tried again in core/storage alone."""
_AZURE = Scheme("abfs", {"anon": False, "use_listings_cache": False, "blocksize": 4 << 20})
"""Blobs of Azure, `CONTAINER/...` of the account of the environment or `CONTAINER@ACCOUNT.dfs.core.windows.net/...`;
needs the package adlfs."""
SCHEMES: dict[str, Scheme] = {
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "s3": _S3,
    "minio": _S3,  # as Kubeflow names the objects of its own store
    "abfs": _AZURE,
    "abfss": _AZURE,
    "az": _AZURE,
}
"""Scheme of a URI -> what opens it. To support another kind of storage, add its row."""


REMOTE = "gs://, s3:// or abfs://"
"""The schemes, for a person who is to write one."""


def is_remote(uri: str | Path) -> bool:
    """True for `gs://` and other URIs with a scheme, False for local paths."""
    return "://" in str(uri)


def scheme_of(uri: str | Path) -> Scheme:
    """The row of the table that a remote URI names.

    Raises:
        ValueError: there is none, or protocols are chained (`simplecache::gs://...`).
    """
    match = _SCHEME.match(str(uri))
    if match is None or match[1] not in SCHEMES or "::" in str(uri):
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"not a place for files; allowed: a local path, {known}")
    return SCHEMES[match[1]]


def allowed_place(text: str) -> str:
    """`text` as it is, for pydantic: a local path, a name, or a URI of the table.

    Raises:
        ValueError: it has another scheme.
    """
    if is_remote(text):
        scheme_of(text)
    return text
