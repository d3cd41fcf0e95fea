"""Playgrounds of tiny models in folders, opened from the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from core.config import validate
from core.errors import UserError
from core.text import model as text
from core.text.config import TextModel, TokenizerConfig
from core.text.objective import build
from core.text.tokenizer import train_tokenizer
from factory.finding import FoundModel
from serving.export import source as sources
from serving.export.source import ImageSource, TextSource
from serving.playground import page
from serving.playground.runtime import runtime
from tests.serving.conftest import TRANSFORMER, shaken
from tests.serving.export.conftest import guided_source

WORDS = "the cat sat on the mat. First Citizen: you are all resolved rather to die than to famish? Speak, speak. " * 40
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def runtime_files() -> dict[str, bytes]:
    """ONNX Runtime Web, if npm can bring it."""
    try:
        return runtime()
    except UserError as error:
        pytest.skip(f"ONNX Runtime Web: {error}")


@pytest.fixture(scope="session")
def image_source(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    return guided_source(tmp_path_factory.mktemp("played") / "images")


@pytest.fixture(scope="session")
def text_source(tmp_path_factory: pytest.TempPathFactory) -> TextSource:
    """A model with merges of byte-level BPE."""
    folder = tmp_path_factory.mktemp("played") / "text"
    config = validate(TextModel, TRANSFORMER, "model")
    words = train_tokenizer(WORDS, TokenizerConfig(kind="bpe", vocabulary=300))
    text.save_model(folder, shaken(build("diffusion", words.size, config), 1), "diffusion", config, words, {})
    found = sources.load(FoundModel({"model": folder}, {"steps": 4, "temperature": 0.9}), {})
    assert isinstance(found, TextSource)
    return found


@pytest.fixture(scope="session")
def guessing_source(text_source: TextSource) -> TextSource:
    """The same model, whose steps go to the mean and hand a guess on."""
    return TextSource(text_source.trained, text_source.settings.model_copy(update={"sampler": "ddpm"}))


@pytest.fixture(scope="session")
def folders(
    image_source: ImageSource, text_source: TextSource, guessing_source: TextSource, runtime_files: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:  # fmt: skip
    """The pages `images`, `text` and `guessing`."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="the extra `export` is not installed: pip install 'textdiffusion[export]'")
    files = import_module("serving.export.onnx_files")
    made = {}
    for name, source, graph, prompt in (
        ("images", image_source, files.DENOISER, ""),
        ("text", text_source, files.STEP, "First Citizen: ___ speak."),
        ("guessing", guessing_source, files.STEP, ""),
    ):
        made[name] = tmp_path_factory.mktemp("play")
        graphs = tmp_path_factory.mktemp("graphs")
        files.write(graphs, source)
        page.write(made[name], source, (graphs / graph).read_bytes(), runtime_files, "Tiny <model>", prompt)
    return made


class _Tabs:
    """Pages opened from the disk, and what they logged."""

    def __init__(self, browser: Any, folders: dict[str, Path]) -> None:
        self._browser, self._folders, self._contexts, self.logged = browser, folders, list[Any](), list[str]()

    def open(self, name: str, *, width: int = 1280, scheme: str = "light") -> Any:
        """A tab with the page, once it shows its first sample."""
        context = self._browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
        self._contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(120_000)
        tab.on("console", lambda message: self.logged.append(message.text))
        tab.on("pageerror", lambda error: self.logged.append(str(error)))
        tab.goto((self._folders[name] / "index.html").as_uri())
        tab.wait_for_function("document.body.dataset.drawn !== undefined")
        return tab

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def opened(browser: Any, folders: dict[str, Path]) -> Iterator[Open]:
    """Opens a page of the test's own; the test fails if the page logged anything."""
    tabs = _Tabs(browser, folders)
    yield tabs.open
    tabs.close()
    assert tabs.logged == []


@pytest.fixture(scope="module")
def _kept(browser: Any, folders: dict[str, Path]) -> Iterator[tuple[_Tabs, dict[str, Any]]]:
    tabs = _Tabs(browser, folders)
    yield tabs, {name: tabs.open(name) for name in folders}
    tabs.close()


@pytest.fixture
def calls(_kept: tuple[_Tabs, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The pages `images`, `text` and `guessing`, opened once, for tests that only call their functions."""
    tabs, pages = _kept
    yield pages
    assert tabs.logged == []
