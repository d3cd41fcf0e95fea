"""The way to gs://: proxies, credentials and who pays; what is wrong with them is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gcsfs
import pytest

from core import storage
from core.errors import UserError
from core.storage import remote
from core.storage.faults import StorageError, with_retries
from pipelines.settings import load_settings
from pipelines.vertex.client import Project, Vertex
from tests.fakes.faulty import FaultyProxy
from tests.fakes.gcs import GcsServer


@pytest.fixture(scope="module")
def gcs() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.create_bucket("bucket")
        yield server


def test_a_proxy_of_the_environment_is_used(gcs: GcsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The storage has a name that only the proxy knows."""
    with FaultyProxy(gcs.url, share=0) as proxy:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.invalid")
        gcsfs.GCSFileSystem.clear_instance_cache()
        storage.write_bytes("gs://bucket/proxied/x", b"content")
        assert storage.read_bytes("gs://bucket/proxied/x") == b"content"
        assert storage.list_files("gs://bucket/proxied") == ["x"]
        assert proxy.requests >= 3
    gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture(params=["missing", "a folder", "no JSON", "no key", "a damaged key"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A file of credentials that cannot be used, named by the environment; a word of the reason."""
    place = tmp_path / "key.json"
    account = {"type": "service_account", "client_email": "a@b", "token_uri": "https://x", "private_key": "nonsense"}
    words = {"missing": "not found", "a folder": "Is a directory", "no JSON": "not a valid json", "no key": "",
             "a damaged key": ""}  # fmt: skip
    if request.param == "a folder":
        place.mkdir()
    elif request.param != "missing":
        text = {"no JSON": "{", "no key": json.dumps({"type": "service_account"}), "a damaged key": json.dumps(account)}
        place.write_text(text[request.param])
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(place))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    gcsfs.GCSFileSystem.clear_instance_cache()
    return place, words[request.param]


def test_credentials_that_cannot_be_used_are_named_with_file_and_reason(damaged: tuple[Path, str]) -> None:
    place, word = damaged
    for ask in (
        lambda: storage.read_bytes("gs://bucket/x"),
        lambda: storage.list_files("gs://bucket/x"),
        lambda: Vertex(Project("demo", "us-central1", "bucket")).credentials,
    ):
        with pytest.raises(UserError) as error:
            ask()
        assert str(error.value).startswith(f"GOOGLE_APPLICATION_CREDENTIALS={place}: ")
        assert word in str(error.value)
        assert "nonsense" not in str(error.value)


def test_who_pays_is_a_setting_that_storage_gets(
    gcs: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    monkeypatch.setenv(remote.PAYER, "")  # put back afterwards
    monkeypatch.delenv(remote.PAYER)
    gcsfs.GCSFileSystem.clear_instance_cache()
    assert remote.filesystem("gs://bucket/x")[0].requester_pays is False
    (tmp_path / "textdiffusion.yaml").write_text("billing_project: payer\n")
    load_settings(file=tmp_path / "textdiffusion.yaml")
    assert remote.filesystem("gs://bucket/x")[0].requester_pays == "payer"


def test_a_bucket_that_nobody_pays_for_says_which_setting_to_write() -> None:
    def refused() -> None:
        raise ValueError("Bucket is requester pays. Set `requester_pays=True` when creating the GCSFileSystem.")

    with pytest.raises(StorageError, match=r"gs://b/x: cannot be read: its owner lets the requester pay: write"):
        with_retries(refused, "gs://b/x", "read")
