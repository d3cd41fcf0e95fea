"""`download` and `generate` of what somebody else made: nothing is written outside the folder that was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import storage
from core.errors import UserError
from factory.registry import Registry
from factory.run_folder import Run, new_run
from local.downloads import fetch
from tests.fakes.gcs import GcsServer
from textdiffusion.cli import app as cli

CODE = b"import os  # runs at every start of Python\n"
Upload = Callable[[str, bytes], None]


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with GcsServer() as gcs:
        gcs.create_bucket("foreign")
        yield gcs


@pytest.fixture
def upload(server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Upload:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = server.client().bucket("foreign")
    return lambda name, data: bucket.blob(name).upload_from_string(data)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


def register(root: str, files: dict[str, str]) -> None:
    """A registry whose one version names `files`."""
    registry = Registry(root)
    storage.write_bytes(f"{root}/m/versions/00001/model/weights.safetensors", b"w")
    facts = {"model": "m", "version": 1, "created": "", "metrics": {}, "evaluation_key": "", "weights_sha256": ""}
    manifest = {**facts, "uri": "", "lineage": {}, "files": files}
    storage.write_json(f"{root}/m/versions/00001/manifest.json", manifest)
    storage.write_json(f"{root}/m/champion.json", {"version": 1, "previous": []})
    assert registry.models() == ["m"]


@pytest.mark.parametrize("kind", ["absolute", "dots", "backslash", "newline"])
def test_an_object_of_a_foreign_bucket_writes_nothing_outside(
    kind: str, upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = {"absolute": f"{tmp_path}/escaped.pth", "dots": "../escaped.pth", "backslash": "a\\..\\escaped.pth",
            "newline": "a\nescaped.pth"}[kind]  # fmt: skip
    upload(f"{kind}/model.json", b"{}")
    upload(f"{kind}/{name}", CODE)
    for command in (("generate", "--model", f"gs://foreign/{kind}"), ("download", f"gs://foreign/{kind}", "copy")):
        assert call(*command) == 2
        assert "refuses the name" in capsys.readouterr().err
    with pytest.raises(UserError, match="refuses the name"):
        storage.copy_tree(f"gs://foreign/{kind}", f"gs://foreign/copy-of-{kind}")
    assert storage.list_files(f"gs://foreign/copy-of-{kind}") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["folder", "gs"])
@pytest.mark.parametrize("name", ["/{tmp}/escaped", "model/../../escaped", "../escaped", "model//{tmp}/escaped", ""])
def test_a_manifest_of_a_foreign_registry_writes_nothing_outside(
    where: str, name: str, upload: Upload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = name.format(tmp=str(tmp_path).lstrip("/"))
    key = hashlib.sha256(name.encode()).hexdigest()[:8]
    root = str(tmp_path / "registry") if where == "folder" else f"gs://foreign/{key}/registry"
    register(root, {"model/weights.safetensors": hashlib.sha256(b"w").hexdigest(),
                    name: hashlib.sha256(CODE).hexdigest()})  # fmt: skip
    if where == "gs":
        upload(f"{key}/registry/m/versions/00001/{name}", CODE)
    for command in (("download", "m@1", str(tmp_path / "copy")), ("generate", "--model", "m"), ("promote", "m@1")):
        assert call(*command, "--registry", root) == 2
        assert "refuses the name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name != "registry"] == []


@pytest.mark.parametrize("files", [[1], "x", {"model/x": 3}, {"model": "0"}, None, {"a": {"b": "c"}}])
def test_a_manifest_of_another_form_is_one_line(files: object, tmp_path: Path) -> None:
    register(str(tmp_path / "registry"), files)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"manifest\.json: files"):
        fetch("m@1", tmp_path / "copy", tmp_path / "runs", str(tmp_path / "registry"))
    assert not (tmp_path / "copy").exists()


def test_a_link_in_the_target_is_not_written_through(tmp_path: Path) -> None:
    register(str(tmp_path / "registry"), {"model/weights.safetensors": hashlib.sha256(b"w").hexdigest()})
    for folder in ("copy", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "copy" / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="a link leads out"):
        fetch("m@1", tmp_path / "copy", tmp_path / "runs", str(tmp_path / "registry"))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "copy" / "model").unlink()
    assert fetch("m@1", tmp_path / "copy", tmp_path / "runs", str(tmp_path / "registry")) == 1
    assert storage.list_files(tmp_path / "copy") == ["model/weights.safetensors"]


def test_a_copy_of_a_run_goes_only_where_it_began(tmp_path: Path) -> None:
    one, other = (new_run(tmp_path / "runs", "images", job, ["sample"], {}) for job in ("one", "other"))
    storage.write_bytes(one.folder / "metrics.json", b"{}")
    for run in (one, other):
        run.save(status="succeeded")

    def copy(run: Run, name: str) -> int:
        return fetch(run.id, tmp_path / name, tmp_path / "runs", str(tmp_path / "registry"))

    storage.write_bytes(tmp_path / "mine" / "metrics.json", b"mine")
    with pytest.raises(UserError, match="holds something else than run"):
        copy(one, "mine")
    assert (tmp_path / "mine" / "metrics.json").read_bytes() == b"mine"
    count = copy(one, "copy")
    (tmp_path / "copy" / "metrics.json").unlink()
    assert copy(one, "copy") == count  # picked up again
    assert (tmp_path / "copy" / "metrics.json").exists()
    with pytest.raises(UserError, match="holds something else than run other"):
        copy(other, "copy")


def test_a_copy_of_a_model_leaves_other_files_alone(tmp_path: Path) -> None:
    register(str(tmp_path / "registry"), {"model/weights.safetensors": hashlib.sha256(b"w").hexdigest()})
    storage.write_bytes(tmp_path / "mine" / "letter.txt", b"mine")
    with pytest.raises(UserError, match=r"holds other files, such as letter\.txt"):
        fetch("m@1", tmp_path / "mine", tmp_path / "runs", str(tmp_path / "registry"))
    assert fetch("m@1", tmp_path / "copy", tmp_path / "runs", str(tmp_path / "registry")) == 1
    assert fetch("m@1", tmp_path / "copy", tmp_path / "runs", str(tmp_path / "registry")) == 1
