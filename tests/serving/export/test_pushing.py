"""`textdiffusion push` and `hf://`: what the Hub gets, what is read back, and one line for all that it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from core.errors import UserError
from core.storage import integrity
from factory import hub as hubs
from factory.finding import FoundModel, find_model
from factory.registry import Registry
from local.generating import generate
from serving.export.published import STANDALONE, Wishes, add
from serving.export.pushing import upload
from tests.fakes.hub import HubServer, Repository
from tests.serving.conftest import save_text, served
from tests.serving.export.conftest import MANNER, save_guided
from tests.serving.export.test_formats import SCRIPTS
from textdiffusion.cli import app as cli

SAMPLE = {**MANNER, "autoguidance": 1.0, "feedback": 0.1}
METRICS = {
    "frechet_distance": {
        "value": 0.559,
        "floor": 0.218,
        "n": 1000,
        "judge": "ab" * 32,
        "doubt": "a | <b>small</b> judge",
    },
    "class_accuracy": {"value": 0.949, "floor": 0.99, "n": 1000, "judge": "ab" * 32},
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """registry/ with guided@1 of images, measured and provisional; the folder text/."""
    root = tmp_path_factory.mktemp("shelf")
    save_guided(root / "images")
    save_text(root / "text")
    facts = integrity.read_json(root / "images" / "model.json")
    registry = Registry(root / "registry")
    registry.register(
        "guided", {"model": root / "images"}, metrics=METRICS, evaluation_key="k",
        weights_sha256=facts["weights_sha256"], provisional=True,
        lineage={"sample": SAMPLE, "run": "guided-1", "data_hash": "dd" * 32, "image": "host.example/project/image",
                 "parents": {"model": "gs://private-bucket/model"}},
    )  # fmt: skip
    return root


@contextmanager
def answering(tmp_path: Path) -> Iterator[HubServer]:
    """A Hub that this process's client asks."""
    with HubServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        patch.setenv("HF_TOKEN", server.token)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        patch.chdir(tmp_path)
        yield server


@pytest.fixture(scope="module")
def pushed(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """What the command has made of guided@1."""
    with answering(tmp_path_factory.mktemp("pushed")) as server:
        arguments = ("push", "guided@1", "me/digits", "--registry", str(shelf / "registry"), "--licence", "mit")
        assert command(*arguments) == 0
        return server.repositories["me/digits"]


@pytest.fixture(scope="module")
def text_export(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model of text, without the traced files, whose tests are elsewhere."""
    folder = tmp_path_factory.mktemp("exported")
    add(folder, FoundModel({"model": shelf / "text"}, {"steps": 4}), str(shelf / "text"), None, Wishes("me/digits"))
    return folder


@pytest.fixture
def hub(pushed: Repository, tmp_path: Path) -> Iterator[HubServer]:
    with answering(tmp_path) as server:
        server.repositories["me/digits"] = Repository(True, list(pushed.commits))
        yield server


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


def test_what_is_pushed_is_read_back_to_the_bit(hub: HubServer, shelf: Path, tmp_path: Path) -> None:
    repository = hub.repositories["me/digits"]
    assert repository.private
    assert len(repository.commits) == 2  # with the one that made it
    assert set(repository.files) == {
        "README.md", "samples.png", "sample.py", "config.json", "model.safetensors",
        "manifest.json", "model/model.json", "model/weights.safetensors", "model/guide.safetensors",
    }  # fmt: skip
    with_ours = generate(
        "guided@1", str(shelf / "registry"), {"seed": 5, "count": 3}, label="two", out=tmp_path / "a.png"
    )
    with_theirs = generate("hf://me/digits", "", {"seed": 5, "count": 3}, label="two", out=tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (with_ours["picture"] == with_theirs["picture"]).all()
    asked = len(hub.requests)
    generate("hf://me/digits", "", {"seed": 5}, out=tmp_path / "b.png")
    assert [one for one in hub.requests[asked:] if not one.startswith("HEAD")] == []  # the rest is in the cache
    assert command("download", "hf://me/digits", str(tmp_path / "copy")) == 0
    assert find_model(str(tmp_path / "copy"), "", None, tmp_path).manner["guidance"] == MANNER["guidance"]


def test_the_card_says_what_the_report_says_and_nothing_of_home(hub: HubServer, shelf: Path) -> None:
    files = hub.repositories["me/digits"].files
    card = files["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["pipeline_tag"]) == ("mit", "unconditional-image-generation")
    assert "| Fréchet distance | 0.559 | 0.218 | 1,000 | lower is better |" in card
    assert "| Class accuracy | 94.9 % | 99.0 % | 1,000 | higher is better |" in card
    assert "Provisional: it did not reach" in card
    assert "the script draws without it" in card
    assert r"a \| \<b\>small\</b\> judge" in card
    assert "| run | guided-1 |" in card
    assert "dd" * 32 in card
    assert "hf://me/digits" in card
    with Image.open(io.BytesIO(files["samples.png"])) as picture:
        assert picture.width > 100
    said = card + files["manifest.json"].decode()
    assert [word for word in ("private-bucket", "host.example", str(shelf)) if word in said] == []
    assert json.loads(files["manifest.json"])["lineage"]["sample"] == SAMPLE


def test_the_script_of_a_repository_is_the_documentations(hub: HubServer, shelf: Path, tmp_path: Path) -> None:
    for name in ("sample.py", "write.py"):
        assert (STANDALONE / f"{name}.txt").read_text("utf-8") == SCRIPTS[name]
    for name, data in hub.repositories["me/digits"].files.items():
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "sample.py"], cwd=tmp_path / "clone", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "clone/samples.safetensors")["images"].shape == (4, 1, 8, 8)


def test_text_replaces_images_and_is_served(hub: HubServer, text_export: Path, tmp_path: Path) -> None:
    upload(text_export, "me/digits", "text")
    files = hub.repositories["me/digits"].files
    assert {"write.py", "model/tokenizer.json"} <= set(files)
    assert not {"sample.py", "samples.png", "model/guide.safetensors"} & set(files)
    card = files["README.md"].decode()
    assert "text-generation" in card
    assert "This model was not measured." in card
    assert "None was stated" in card
    assert re.search(r"Sample 3:\n\n    ", card)
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HUB_CACHE": str(tmp_path / "cache")}
    with served("hf://me/digits", environment=environment) as server:
        assert server.get("/")["model"] == "text"
        wanted = generate("hf://me/digits", "", {"seed": 3, "count": 1}, prompt="the ")["texts"]
        answer = server.post("/generate", {"prompt": "the ", "seed": 3})
        assert [one["text"] for one in answer["samples"]] == wanted


def test_an_earlier_commit_is_read_by_its_id(hub: HubServer, text_export: Path, tmp_path: Path) -> None:
    first = hub.repositories["me/digits"].commits[-1][0]
    upload(text_export, "me/digits", "text")
    assert find_model("hf://me/digits", "", None, tmp_path / "a").modality == "text"
    assert find_model(f"hf://me/digits@{first}", "", None, tmp_path / "b").modality == "images"


def changed_manifest(hub: HubServer, **changes: object) -> None:
    """The repository with another manifest, which states its own hash all right."""
    repository = hub.repositories["me/digits"]
    manifest = {**json.loads(repository.files["manifest.json"]), **changes}
    sealed = json.dumps(integrity.sealed(manifest)).encode()
    repository.commit({**repository.files, "manifest.json": sealed})


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("file", "message"),
        [
            ("../../escaped.json", "refuses"),
            ("model/../../x.json", "refuses"),
            ("/etc/x.json", "refuses"),
            ("model/weights.bin", "refuses 'model/weights.bin'; allowed: .safetensors and .json"),
            ("model/data.pkl", "refuses 'model/data.pkl'"),
            ("other/model.json", "below model or autoregressive"),
            ("model/absent.json", "there is no model/absent.json"),
        ],
    )
    def test_files_that_no_model_has(
        self, file: str, message: str, hub: HubServer, shelf: Path, tmp_path: Path
    ) -> None:
        files = json.loads(hub.repositories["me/digits"].files["manifest.json"])["files"]
        changed_manifest(hub, files={**files, file: "00" * 32})
        before = {path.name for path in tmp_path.iterdir()} | {"cache"}
        with pytest.raises(UserError, match=re.escape(message)):
            hubs.fetch("hf://me/digits", tmp_path / "in" / "here")
        assert {path.name for path in tmp_path.iterdir()} <= before | {"in"}
        assert {path.name for path in (tmp_path / "in").iterdir()} == {"here"}

    def test_other_content_than_the_manifest_states(self, hub: HubServer, shelf: Path, tmp_path: Path) -> None:
        repository = hub.repositories["me/digits"]
        files = dict(repository.files)
        files["model/weights.safetensors"] = bytes(reversed(files["model/weights.safetensors"]))
        repository.commit(files)
        with pytest.raises(UserError, match=r"guided@1: model/weights.safetensors is damaged"):
            find_model("hf://me/digits", "", None, tmp_path / "in")
        repository.commit(
            {**repository.commits[1][1], "manifest.json": files["manifest.json"].replace(b"0.559", b"0.001")}
        )
        with pytest.raises(UserError, match="does not match its own SHA-256"):
            find_model("hf://me/digits", "", None, tmp_path / "in")

    def test_files_larger_than_allowed_are_not_fetched(
        self, hub: HubServer, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hubs, "MAX_BYTES", 1000)
        with pytest.raises(UserError, match=r"has \d+ bytes; allowed: 1000"):
            hubs.fetch("hf://me/digits", tmp_path / "in")
        assert not [one for one in hub.requests if one.startswith("GET /lfs")]

    def test_a_repository_that_holds_something_else_is_left_alone(self, hub: HubServer, text_export: Path) -> None:
        hub.repositories["me/digits"].commit({"pytorch_model.bin": b"theirs"})
        with pytest.raises(UserError, match="hf://me/digits: holds something that `push` did not write"):
            upload(text_export, "me/digits", "text")
        with pytest.raises(UserError, match=r"the token may not do this \(403\): You don't have the rights"):
            upload(text_export, "you/digits", "text")
        assert hub.repositories["me/digits"].files == {"pytorch_model.bin": b"theirs"}
        with pytest.raises(UserError, match=r"there is no manifest.json; `textdiffusion push` writes one"):
            find_model("hf://me/digits", "", None, Path("in"))

    @pytest.mark.parametrize(
        ("name", "token", "message"),
        [
            ("hf://digits", "", "expected hf://USER/REPO or hf://USER/REPO@REVISION"),
            ("hf://a/b/c", "", "expected hf://USER/REPO"),
            ("hf://me/digits@../x", "", "expected hf://USER/REPO"),
            ("hf://me/none", "", "hf://me/none: no such repository on the Hub, or a private one: set HF_TOKEN"),
            ("hf://me/digits@v9", "", "hf://me/digits@v9: no such revision"),
            ("hf://me/digits", "hf_wrong", "the Hub refuses the token (401): set HF_TOKEN"),
            ("hf://me/digits", "none", "no such repository on the Hub, or a private one"),
        ],
    )
    def test_names_and_tokens(
        self, name: str, token: str, message: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        hub.repositories["me/digits"] = Repository(private=True)
        if token:
            monkeypatch.setenv("HF_TOKEN", token) if token != "none" else monkeypatch.delenv("HF_TOKEN")
        assert command("generate", "--model", name, "--registry", str(tmp_path)) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "token", "message"),
        [
            (["me/digits"], None, "hf://me/digits: to push takes a token that may write: set HF_TOKEN"),
            (["me/digits"], "hf_wrong", "the Hub refuses the token (401)"),
            (["digits"], "", "digits: expected hf://USER/REPO"),
            (["me/digits", "--licence", "MIT License"], "", "--licence: found 'MIT License'"),
        ],
    )
    def test_pushes(
        self, arguments: list[str], token: str | None, message: str, hub: HubServer, shelf: Path,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        if token is None:
            monkeypatch.delenv("HF_TOKEN")
            monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "nowhere")
        elif token:
            monkeypatch.setenv("HF_TOKEN", token)
        assert command("push", "guided@1", *arguments, "--registry", str(shelf / "registry")) == 2
        assert message in capsys.readouterr().err
        assert len(hub.repositories["me/digits"].commits) == 2

    def test_a_hub_that_is_not_reached(
        self, hub: HubServer, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find_model("hf://me/digits", "", None, tmp_path / "first")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert find_model("hf://me/digits", "", None, tmp_path / "again").modality == "images"  # from the cache
        with pytest.raises(
            UserError, match=r"hf://me/other: the Hub cannot be reached .*manifest.json is not in its cache"
        ):
            find_model("hf://me/other", "", None, tmp_path / "other")
        assert command("push", "guided@1", "me/digits", "--registry", str(shelf / "registry")) == 2


def test_a_published_hash_is_that_of_the_file(hub: HubServer, shelf: Path) -> None:
    files = hub.repositories["me/digits"].files
    stated = json.loads(files["manifest.json"])["files"]
    assert stated == {name: hashlib.sha256(files[name]).hexdigest() for name in stated}
