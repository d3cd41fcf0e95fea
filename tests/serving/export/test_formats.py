"""Every format gives core's samples within its tolerance, and the page's scripts do, without this package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core import samplers
from core.errors import UserError
from core.images.guidance import denoiser_of
from core.images.sampling import choose_sigmas
from core.randomness import Noise
from core.text import generation
from core.text.generation import Settings
from serving.export import folder as plain
from serving.export.check import TOLERANCE, of_text
from serving.export.programs import DrawingStep, named
from serving.export.source import ImageSource, TextSource
from tests.serving.export.conftest import guided_source

PAGE = Path(__file__).parents[3] / "docs/how-to/export.md"
SCRIPTS = dict(re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', PAGE.read_text("utf-8"), re.M | re.S))
EXTRA = "the extra `export` is not installed: pip install 'textdiffusion[export]'"


def onnx_files() -> object:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=EXTRA)
    return import_module("serving.export.onnx_files")


@pytest.fixture(scope="session")
def folder(image_source: ImageSource, text_source: TextSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With digits-folder and text-folder, as the page calls them."""
    root = tmp_path_factory.mktemp("folders")
    for name, source in (("digits-folder", image_source), ("text-folder", text_source)):
        (root / name).mkdir()
        plain.write(root / name, source)
    return root


def type_in(folder: Path, script: str) -> str:
    """Runs a script of the page where none of this project's packages is."""
    (folder / script).write_text(SCRIPTS[script], encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, check=False,
                          env={"PATH": "", "PYTHONPATH": str(folder / "blocked"), "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def blocked(folder: Path) -> None:
    """Packages of this project's names that cannot be imported, before the real ones on the path."""
    for name in ("core", "factory", "serving", "textdiffusion"):
        (folder / "blocked" / name).mkdir(parents=True)
        (folder / "blocked" / name / "__init__.py").write_text("raise ImportError('blocked')")


def test_fifteen_lines_without_this_package_draw_our_images(folder: Path, image_source: ImageSource) -> None:
    assert len([line for line in SCRIPTS["sample.py"].splitlines() if line.strip()]) == 15
    type_in(folder, "sample.py")
    drawn = load_file(folder / "samples.safetensors")["images"]
    trained, settings = image_source.trained, image_source.settings
    generator = torch.Generator().manual_seed(0)
    sigmas = choose_sigmas(settings, trained.process)

    def noise() -> torch.Tensor:
        return torch.randn(4, 1, 8, 8, generator=generator)

    denoiser = denoiser_of(trained, settings, np.full(4, 2), torch.device("cpu"))
    x = samplers.estimated_start(denoiser, float(sigmas[0]) * noise(), float(sigmas[0]))
    wanted = samplers.SAMPLERS[settings.sampler](denoiser, x, sigmas, noise=noise).clamp(-1, 1)
    assert float((drawn - wanted).abs().max()) < TOLERANCE["images"]
    assert float(wanted.std()) > 0.05


def test_files_of_a_transformer_give_our_images(tmp_path: Path) -> None:
    source = guided_source(tmp_path, {"network": {"name": "dit", "patch": 4, "width": 16, "depth": 1, "heads": 2}})
    plain.write(tmp_path, source)
    (found,) = plain.check(tmp_path, source)
    assert found.largest < found.allowed


@pytest.mark.parametrize("kind", ["text", "guessing"])
def test_a_script_without_this_package_writes_our_text(
    kind: str, folder: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the random numbers that such a script has, which are torch's."""
    source: TextSource = request.getfixturevalue(f"{kind}_source")
    shutil.copytree(folder / "blocked", tmp_path / "blocked")
    plain.write(tmp_path / "text-folder", source)
    written = type_in(tmp_path, "write.py").removesuffix("\n")
    torchs = torch.Generator().manual_seed(0)
    monkeypatch.setattr(generation, "normal", lambda _, *shape: torch.randn(1, *shape, generator=torchs))
    monkeypatch.setattr(generation, "uniform", lambda _, *shape: torch.rand(1, *shape, generator=torchs))
    s, network = source.settings, source.network
    how = Settings(s.sampler, s.steps, s.temperature, 1.0, s.tilt)
    none = torch.zeros(1, 0, dtype=torch.long)
    tokens = generation.generate(network, none, 32, source.block, how, Noise([0]))
    assert written == source.trained.tokenizer.decode(tokens[0].tolist())


def test_text_drawn_by_other_uniforms_is_seen_by_the_check(text_source: TextSource) -> None:
    step = text_source.program.module()
    of_text(text_source, "step", step).require()

    def otherwise(*inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        given = named("mixture", inputs)
        outputs: Sequence[torch.Tensor] = step(*{**given, "uniform": 1 - given["uniform"]}.values())
        return outputs

    with pytest.raises(UserError, match="step: tokens: differs from this project's samples by inf"):
        of_text(text_source, "step", otherwise).require()


def test_a_block_that_the_check_gives_whole_is_alike(text_source: TextSource) -> None:
    short = TextSource(text_source.trained, text_source.settings.model_copy(update={"block": 2}))
    of_text(short, "step", text_source.program.module()).require()


def test_what_a_step_draws_has_the_tokens_that_are_known(text_source: TextSource) -> None:
    network, shape = text_source.network, (1, 8)
    prefix, tokens = torch.full((1, 1), network.vocabulary), torch.arange(8)[None]
    known = tokens % 2 == 0
    noise, uniform = (
        torch.zeros(*shape, network.config.process.embedding),
        torch.full((*shape, network.vocabulary), 0.5),
    )
    step = DrawingStep(network, "mixture")
    logits, drawn, _ = step(prefix, tokens, known, noise, uniform, noise, *map(torch.tensor, (1.0, 0.5, 1.0)))
    assert drawn[known].tolist() == [0, 2, 4, 6]
    assert torch.equal(drawn[~known], logits.argmax(dim=-1)[~known])  # equal uniforms are no preference


@pytest.mark.parametrize("kind", ["image", "text", "guessing"])
def test_onnx_runtime_gives_our_samples(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    writer, source = onnx_files(), request.getfixturevalue(f"{kind}_source")
    writer.write(tmp_path, source)  # type: ignore[attr-defined]
    found = writer.check(tmp_path, source)  # type: ignore[attr-defined]
    assert [one.what for one in found] == (["denoiser.onnx", "sampler.onnx"] if kind == "image" else ["step.onnx"])
    assert all(one.largest < one.allowed for one in found)
    if kind == "image":
        import onnxruntime

        from serving.export.onnx_graph import rows_of

        session = onnxruntime.InferenceSession(tmp_path / "sampler.onnx")
        fed = {"label": np.array([0, 1]), "guidance": np.array(2, np.float32), "autoguidance": np.array(1, np.float32)}
        noise = np.random.default_rng(0).standard_normal((8, 2, 1, 8, 8), np.float32)
        default = session.run(None, {"noise": noise, **fed})[0]
        longer = session.run(None, {"noise": noise, "rows": rows_of(source.table_for(7)), **fed})[0]
        assert default.shape == longer.shape == (2, 1, 8, 8)
        assert np.abs(default - longer).max() > 1e-2
        shutil.copytree(tmp_path, tmp_path / "page/digits-onnx", ignore=shutil.ignore_patterns("page"))
        exec_page(tmp_path / "page")


def exec_page(folder: Path) -> None:
    """The ONNX example of the page."""
    (folder / "runtime.py").write_text(SCRIPTS["runtime.py"] + "assert images.shape == (4, 1, 8, 8)\n", "utf-8")
    subprocess.run([sys.executable, "runtime.py"], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["image", "text", "guessing"])
def test_a_program_of_torch_gives_our_samples(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from serving.export import torch_program

    source = request.getfixturevalue(f"{kind}_source")
    torch_program.write(tmp_path, source)
    (found,) = torch_program.check(tmp_path, source)
    assert found.largest < found.allowed


def test_from_pretrained_of_diffusers_gives_our_images(
    image_source: ImageSource, text_source: TextSource, tmp_path: Path
) -> None:
    pytest.importorskip("diffusers", reason=EXTRA)
    from serving.export import diffusers_folder

    diffusers_folder.write(tmp_path, image_source)
    (found,) = diffusers_folder.check(tmp_path, image_source)
    assert found.largest < found.allowed
    with pytest.raises(UserError, match="for models of images; allowed for text: hub, onnx, torch"):
        diffusers_folder.write(tmp_path / "text", text_source)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_damaged_weights_are_seen_by_the_check(kind: str, folder: Path, request: pytest.FixtureRequest,
                                               tmp_path: Path) -> None:  # fmt: skip
    source = request.getfixturevalue(f"{kind}_source")
    name = "digits-folder" if kind == "image" else "text-folder"
    shutil.copytree(folder / name, tmp_path / "copy")
    (good,) = plain.check(tmp_path / "copy", source)
    good.require()
    weights = load_file(tmp_path / "copy/model.safetensors")
    first = next(key for key, value in weights.items() if value.ndim == 4 or key.endswith("query_key_value.weight"))
    weights[first] = weights[first] * 1.05
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "copy/model.safetensors")
    (bad,) = plain.check(tmp_path / "copy", source)
    with pytest.raises(Exception, match="differs from this project's samples by"):
        bad.require()


def test_the_configuration_is_json_without_code(folder: Path) -> None:
    config = json.loads((folder / "digits-folder/config.json").read_text("utf-8"))
    assert {name.split(".")[0] for _, name, _, _ in config["graph"]} <= {"torch", "operator"}
    assert config["classes"] == ["zero", "one", "two"]
