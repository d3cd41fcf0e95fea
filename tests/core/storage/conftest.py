"""What tests of storage share: a bucket of their own on a server of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.gcs import GcsServer


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with GcsServer() as gcs:
        gcs.create_bucket("bucket")
        yield gcs


@pytest.fixture
def bucket(server: GcsServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A prefix for one test."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"gs://bucket/{request.node.name[:40].replace('[', '-').replace(']', '')}"
