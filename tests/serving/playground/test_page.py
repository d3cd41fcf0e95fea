"""In Chromium, from file://: the browser's samples are Python's, and the page serves everybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.images.sampling import choose_sigmas, denoise_batch, sample_seed
from core.randomness import Noise, seed_of
from core.text.sampling import written
from serving.export.check import TOLERANCE
from serving.export.source import ImageSource, TextSource
from tests.serving.playground.conftest import Open

Pages = dict[str, Any]


@pytest.mark.parametrize("count", [1, 3, 64, 1000])
def test_the_browsers_noise_is_that_of_python(count: int, calls: Pages) -> None:
    for seed in (0, 12_345_678_901):
        noise = Noise([seed_of(seed, "sample", 0)])
        wanted = [noise.normal(count)[0] for _ in range(2)]
        drawn = calls["images"].evaluate(
            """([seed, count]) => {
                const noise = noiseOf(seedOf(seed, "sample", 0));
                return [[...noise.normal(count), ...noise.normal(count)], [...noise.uniform(count)]];
            }""",
            [seed, count],
        )
        assert float((torch.tensor(drawn[0]) - torch.cat(wanted)).abs().max()) < 1e-5
        assert torch.equal(torch.tensor(drawn[1]), noise.uniform(count)[0])  # to the bit


@pytest.mark.parametrize(("label", "guidance", "steps", "seed"), [(2, 1.5, 4, 0), (0, 3.0, 8, 7), (3, 1.0, 6, 2**40)])
def test_an_image_of_the_browser_is_that_of_python(
    label: int, guidance: float, steps: int, seed: int, calls: Pages, image_source: ImageSource
) -> None:
    wishes = {"label": label, "guidance": guidance, "steps": steps, "seed": seed}
    drawn = calls["images"].evaluate("async (wishes) => [...await drawImage(model, wishes)]", wishes)
    trained = image_source.trained
    settings = image_source.settings.model_copy(update={"guidance": guidance, "steps": steps, "precision": "fp32"})
    sigmas = choose_sigmas(settings, trained.process)
    ours = denoise_batch(trained, settings, [sample_seed(seed, 0)], np.array([label]), sigmas, torch.device("cpu"))
    assert float((torch.tensor(drawn) - ours.flatten()).abs().max()) < TOLERANCE["images"] * max(
        1, float(ours.abs().max())
    )


@pytest.mark.parametrize("sampler", ["mixture", "ddpm"])
@pytest.mark.parametrize("prompt", ["First Citizen: ___ speak.", "the cat ", "", "it's  42 naïve\n\n ___ días…"])
def test_a_text_of_the_browser_is_that_of_python(
    prompt: str, sampler: str, calls: Pages, text_source: TextSource
) -> None:
    wishes = {"steps": 4, "temperature": 0.9, "seed": 3, "gap": 5, "length": 24}
    drawn = calls["text" if sampler == "mixture" else "guessing"].evaluate(
        "async ([prompt, wishes]) => model.words.decode((await drawText(model, prompt, wishes)).map(([id]) => id))",
        [prompt, wishes],
    )
    section = {"count": 1, "block": text_source.block, "sampler": sampler, **wishes}
    (row,) = written(text_source.trained, None, section, prompt, torch.device("cpu"))
    assert drawn == row["text"]


@pytest.mark.parametrize(
    "text", ["First Citizen: speak!", "it's  42 naïve\n\n días… 漢字 🙂", "  \t x", "", "they'll 'twas"]
)
def test_the_browsers_tokens_are_those_of_the_tokenizer(text: str, calls: Pages, text_source: TextSource) -> None:
    page = calls["text"]
    ids = text_source.trained.tokenizer.encode(text)
    assert page.evaluate("(text) => model.words.encode(text)", text) == ids
    assert page.evaluate("(ids) => model.words.decode(ids)", ids) == text


def test_the_form_draws_by_keyboard_and_the_way_can_be_gone_back(opened: Open) -> None:
    page = opened("images")
    page.locator("input[name=label]:checked").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.getElementById('picture').getAttribute('aria-label').includes('class one')")
    page.fill("#seed", "5")
    page.keyboard.press("Enter")
    page.wait_for_function("document.body.dataset.drawn === '5'")
    assert "seed 5" in page.inner_text("#status")
    moment = page.locator("#moment")
    assert moment.input_value() == "5"  # the estimate of the start, four steps, the image
    finished = page.evaluate("document.getElementById('picture').toDataURL()")
    moment.focus()
    page.keyboard.press("Home")
    assert "step 0 of 5" in moment.get_attribute("aria-valuetext")
    assert page.evaluate("document.getElementById('picture').toDataURL()") != finished


def test_words_are_seen_to_settle_and_a_mistake_is_said(opened: Open) -> None:
    page = opened("text")
    assert page.input_value("#prompt") == "First Citizen: ___ speak."
    assert page.inner_text("#text").startswith("First Citizen:")
    assert page.inner_text("#text").endswith(" speak.")
    page.fill("#prompt", "one ___ two ___ three")
    page.click("#draw")
    page.wait_for_function("document.getElementById('status').textContent === 'One ___ at a time.'")


@pytest.mark.parametrize("name", ["images", "text"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_complaint(name: str, scheme: str, opened: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(opened(name, scheme=scheme)).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize("name", ["images", "text"])
def test_nothing_is_wider_than_a_narrow_screen(name: str, opened: Open) -> None:
    page = opened(name, width=320)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_page_without_its_files_says_so(browser: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes((folders["images"] / "index.html").read_bytes())
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    assert "runtime.js or model.js is not beside this page" in page.inner_text("#status")
    page.close()


def test_names_are_text_and_never_markup(folders: dict[str, Path]) -> None:
    html = (folders["images"] / "index.html").read_text(encoding="utf-8")
    assert "<h1>Tiny &lt;model&gt;</h1>" in html
    model = (folders["images"] / "model.js").read_text(encoding="utf-8")
    facts = json.loads(model.removeprefix("const MODEL = ").removesuffix(";\n"))
    assert facts["config"]["classes"] == ["zero", "one", "two"]
