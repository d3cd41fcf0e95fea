"""Files are read from this machine and from the schemes of one table; whatever else is named is refused unasked."""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.registry import _registry

from core import storage
from core.config import validate
from core.errors import UserError
from core.images.config import ImageData
from core.schemes import SCHEMES, Scheme, is_remote, scheme_of
from pipelines.settings import load_settings
from textdiffusion.cli import app as cli

SERVED = ("http://127.0.0.1:{port}/x", "simplecache::http://127.0.0.1:{port}/x", "zip://x::http://127.0.0.1:{port}/x",
          "reference://x::http://127.0.0.1:{port}/x", "webhdfs://127.0.0.1:{port}/x",
          "gs://b/x::http://127.0.0.1:{port}/x", "HTTP://127.0.0.1:{port}/x")  # fmt: skip
OTHERS = ("https://host/x", "ftp://host/x", "file:///etc/passwd", "local:///etc/passwd", "memory://x", "://x",
          "reference://x", "gs:///x", "GS://b/x", "github://x", "filecache::gs://b/x", "none://x")  # fmt: skip


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[int, list[str]]]:
    """The port of a server on this machine, and what it was asked."""
    requests: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, requests
        server.shutdown()


@pytest.mark.parametrize("uri", [*SERVED, *OTHERS])
def test_another_scheme_is_one_line_and_no_request(
    uri: str, asked: tuple[int, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    port, requests = asked
    uri = uri.format(port=port)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_text("x")
    for attempt in (
        lambda: storage.read_bytes(uri),
        lambda: storage.exists(uri),
        lambda: storage.list_files(uri),
        lambda: storage.write_bytes(uri, b"x"),
        lambda: storage.copy_tree(uri, tmp_path / "copy"),
        lambda: storage.copy_tree(tmp_path, uri),
        lambda: validate(ImageData, {"source": "npz", "data_dir": uri}, "job.yaml: data"),
        lambda: load_settings({"registry": uri}, environment={}),
        lambda: load_settings(environment={"TEXTDIFFUSION_RUNS": uri}),
    ):
        with pytest.raises(UserError, match="not a place for files; allowed: a local path, gs://"):
            attempt()
    for command in (
        ("generate", "--model", uri),
        ("download", uri, "copy"),
        ("models", "--registry", uri),
        ("run", "digits", "--set", f"data.data_dir={uri}"),
        ("shards", uri, "--count", "4", "--out", "many"),
        ("shards", "model", "--count", "4", "--out", uri),
        ("gallery", "--publish", uri),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(list(command))
        assert ended.value.code == 2, command
        said = capsys.readouterr().err.strip().splitlines()
        assert "not a place for files" in said[-1], (command, said)
        assert "Traceback" not in "".join(said)
    assert requests == []


@pytest.mark.parametrize(
    "place", ["data", "../data", "/data", "C:/data", "gs://b/x", "gcs://b/x", "s3://b/x", "digits@3"]
)
def test_what_the_project_supports_is_taken(place: str) -> None:
    assert validate(ImageData, {"source": "npz", "data_dir": place}, "data").data_dir == place
    assert not is_remote(place) or scheme_of(place)


def test_a_scheme_is_one_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEMES, "memory", Scheme("memory"))
    storage.write_bytes("memory://place/x", b"1")
    assert storage.read_bytes("memory://place/x") == b"1"
    assert validate(ImageData, {"source": "npz", "data_dir": "memory://place"}, "data").data_dir


def test_a_supported_scheme_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # where it is once it was used
    with pytest.raises(UserError, match=r"s3://b/x: .*s3fs"):
        storage.read_bytes("s3://b/x")
