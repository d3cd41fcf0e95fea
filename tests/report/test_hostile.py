"""The pages in Chromium when every text of a run is an attack: nothing runs, nothing is asked for, and all is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from report import build
from report.artifacts import read
from report.gallery import Entry, Registered
from report.gallery import build as build_gallery
from tests.report.artifacts import image_run, text_run
from tests.report.hostile import ATTACKS, MARK, spoil

PAGES = ["images", "text", "gallery"]
FOREIGN = """[...document.querySelectorAll("*")].filter((one) =>
    one.matches(`iframe, object, embed, base, form[action], meta[http-equiv=refresh], link:not([href^="data:"]),
        [src]:not([src^="data:"]), [href*="script:"], main style`)
    || [...one.attributes].some((it) => it.name.startsWith("on"))).map((one) => one.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of images, one of text, and a gallery of both and of runs and versions that are called like attacks."""
    root = tmp_path_factory.mktemp("hostile")
    found, entries = {}, []
    for name, make in (("images", image_run), ("text", text_run)):
        run = spoil(root / name, make(root / name))
        found[name] = build(root / name / "report.html", **run)
        entries.append(Entry(read(**run), f"javascript:document.title='pwned'//{name}/report.html"))
    for number, attack in enumerate(ATTACKS):
        facts = {"id": f"{number}{attack}", "job": attack, "status": attack, "created": attack, "steps": []}
        entries.append(Entry(read({**facts, "config": {attack: attack}}), f"javascript:{attack}"))
    versions = [
        Registered(attack, number, f"{number}{attack}", attack, number % 2 == 0)
        for number, attack in enumerate(ATTACKS)
    ]
    build_gallery(root / "index.html", entries, versions)
    return {**found, "gallery": root / "index.html"}


@pytest.mark.parametrize("policy", [True, False], ids=["", "without the security policy"])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_runs_and_nothing_is_asked_for(name: str, policy: bool, browser: Any, hostile: dict[str, Path]) -> None:
    context = browser.new_context(bypass_csp=not policy, reduced_motion="reduce")
    page, said, asked = context.new_page(), [], []
    page.set_default_timeout(30_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    address = hostile[name].as_uri()
    page.goto(address)
    for box in page.locator("button:visible").all()[:20]:  # what scripts make of the texts, too
        box.click()
    for slider in page.locator("input[type=range]:visible").all():
        slider.press("Home")
    if name == "gallery":
        page.select_option("#which", index=1)
        for side in ("#first", "#second"):
            page.select_option(side, index=3)
        page.goto(f"{address}#run-%E0%A4%A")
    page.mouse.move(300, 300)
    page.wait_for_timeout(300)
    assert page.evaluate(FOREIGN) == []
    assert "pwned" not in page.title().partition(" · ")[2]
    assert page.title().endswith(("TextDiffusion report", "TextDiffusion"))
    assert [url[:80] for url in asked if not url.startswith((address, "data:"))] == []
    assert said == []
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_it_is_shown_as_text_on_a_page_that_works(name: str, browser: Any, hostile: dict[str, Path]) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 800})
    page = context.new_page()
    page.goto(hostile[name].as_uri())
    text = page.evaluate("document.body.textContent")
    for part in ("</script><script>", "onerror=", "<!--<script>", f">{MARK}</a>", "{{7*7}}"):
        assert part in text
    assert page.locator("h1").count() == 1
    assert page.locator("#theme").is_visible()  # the page's own script ran
    assert page.locator("main > section").count() > 2
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    context.close()
