"""The pages in Chromium: no error, nothing wider than the screen, by keyboard, light and dark, and what axe checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report import build
from tests.report.artifacts import image_run, text_run

Open = Callable[..., Any]
PAGES = ["images", "text", "gallery", "service"]


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens one of the pages; the test fails if the page logged anything."""
    logged: list[str] = []
    contexts: list[Any] = []

    def page_of(name: str, *, width: int = 1280, scheme: str = "light", motion: str = "reduce") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion=motion
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("requestfailed", lambda request: logged.append(request.url[:80]))
        page.goto(pages[name].as_uri())
        return page

    yield page_of
    for context in contexts:
        context.close()
    assert logged == []


def until(page: Any, condition: Callable[[], bool]) -> None:
    """Waits for `condition`. Playwright's own waiting needs eval, which the pages' security policy refuses."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    pytest.fail("it did not come about within ten seconds")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(name: str, scheme: str, opened: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(name, scheme=scheme)
    page.wait_for_timeout(200)
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:160]) for one in found] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_screen_needs_no_sideways_scrolling(name: str, opened: Open) -> None:
    page = opened(name, width=320)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0


@pytest.mark.parametrize("name", PAGES)
def test_dark_mode_is_the_systems_until_it_is_chosen(name: str, opened: Open) -> None:
    page = opened(name, scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(ground) != dark
    page.reload()
    assert page.evaluate(ground) != dark  # kept


@pytest.mark.parametrize("name", PAGES)
def test_every_control_is_reached_by_tab_and_says_what_it_is(name: str, opened: Open) -> None:
    page = opened(name)
    page.wait_for_timeout(200)
    wanted = page.evaluate(
        """[...document.querySelectorAll("a, button, input, select, [tabindex='0'], summary")].filter((one) =>
        one.checkVisibility() && !one.matches("[tabindex='-1']")).length"""
    )
    seen = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("""(() => { const one = document.activeElement;
            window.order = window.order || new Map();
            if (!order.has(one)) order.set(one, order.size);
            const name = one.ariaLabel || one.labels?.[0]?.textContent || one.textContent;
            return one === document.body ? "" : `${order.get(one)} ${name.trim()}`; })()""")
        )
    seen.discard("")
    assert len(seen) == wanted
    assert all(one.split(" ", 1)[1] for one in seen)


def test_the_player_plays_with_the_space_bar_and_steps_with_the_arrows(opened: Open) -> None:
    page = opened("images", motion="no-preference")
    slider = page.locator(".player input")
    slider.focus()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext").endswith("step 0 of 18")
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext").endswith("step 1 of 18")
    page.keyboard.press(" ")
    until(page, lambda: int(slider.input_value()) > 3)
    page.keyboard.press(" ")
    assert page.locator(".player.playing").count() == 0


@pytest.mark.parametrize("name", ["text", "gallery"])
def test_the_fusion_slider_shades_tokens_by_their_probability(name: str, opened: Open) -> None:
    page = opened(name)
    if name == "gallery":
        page.select_option("#which", "pydoc-1")
    explorer = page.locator(".explorer").first
    slider, token = explorer.locator(".turn input"), explorer.locator("mark").first
    slider.focus()
    page.keyboard.press("Home")
    assert explorer.locator(".turn .reading").inner_text().startswith("α = 0:")
    assert token.get_attribute("title") == "14 %"  # exp(-2), as the artifact has it
    page.keyboard.press("End")
    assert token.get_attribute("title") == "37 %"  # exp(-1)
    explorer.get_by_role("button", name="Bayes w").click()
    assert explorer.locator(".turn .reading").inner_text().startswith("w = ")


class TestGallery:
    def test_a_run_is_looked_at_from_its_card_and_by_its_address(self, opened: Open, pages: dict[str, Path]) -> None:
        page = opened("gallery")
        page.get_by_role("button", name="Look closer at digits-2").click()
        assert page.locator(".closer .kind").inner_text().endswith("run digits-2")
        assert page.locator(".closer .player canvas").is_visible()
        page.goto(pages["gallery"].as_uri() + "#run-digits-1")
        until(page, lambda: "digits-1" in page.locator(".closer .kind").inner_text())

    def test_the_champion_is_marked_once(self, opened: Open) -> None:
        badges = opened("gallery").locator(".card .badge:not(.past)")
        assert badges.all_inner_texts() == ["Champion digits@2"]

    def test_two_runs_are_compared(self, opened: Open) -> None:
        page = opened("gallery")
        for name in ("digits-2", "digits-1"):
            page.get_by_role("checkbox", name=f"Compare {name}").check()
        assert page.input_value("#first") == "digits-1"  # the older one first
        row = page.locator(".both tbody tr").filter(has_text="frechet_distance")
        assert row.locator("td").all_inner_texts() == ["2.60", "1.90", "1.42", "better"]
        assert page.locator(".settings tbody tr").filter(has_text="train.seed").locator("td").all_inner_texts() == [
            "1",
            "2",
        ]

    def test_the_finder_hides_what_does_not_match(self, opened: Open) -> None:
        page = opened("gallery")
        page.select_option("#job", "digits")
        page.fill("#find", "digits-1")
        assert page.locator(".card:visible").count() == 1
        assert page.locator("form.finder [role=status]").inner_text() == "1 of 4 runs"

    def test_a_box_of_the_lineage_leads_to_its_run(self, opened: Open) -> None:
        page = opened("gallery")
        page.locator("#lineage .lineage.wide a", has_text="digits@1").click()
        until(page, lambda: page.locator(".closer .kind").inner_text().endswith("run digits-1"))

    def test_links_to_reports_lead_somewhere(self, opened: Open, pages: dict[str, Path]) -> None:
        links = (
            opened("gallery").locator(".card a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
        )
        assert len(links) == 3
        assert all((pages["gallery"].parent / link).is_file() for link in links)


def test_a_text_begins_as_signs_and_not_as_a_black_box(opened: Open) -> None:
    page = opened("text")
    slider = page.locator(".player input")
    slider.focus()
    page.keyboard.press("Home")
    first = page.locator(".player .plate p").first
    noise = first.inner_text()
    page.keyboard.press("End")
    assert len(noise.strip()) > 0.7 * len(first.inner_text().strip())


def test_blank_and_missing_tokens_are_shown_as_signs(browser: Any, tmp_path: Path) -> None:
    run = text_run(tmp_path / "run")
    rows = [{"gamma": 9.0, "tokens": [["    "]]}, {"gamma": -6.0, "tokens": [["word", " and", " more"]]}]
    (tmp_path / "run/samples/trajectory.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path / "report.html", **run)
    page = browser.new_page()
    page.emulate_media(reduced_motion="reduce")
    page.goto((tmp_path / "report.html").as_uri())
    page.locator(".player input").focus()
    page.keyboard.press("Home")
    shown = page.locator(".player .plate p").first.inner_text()
    page.close()
    assert len(shown) == len("word and more")
    assert not set(shown) & set("word anmore")


def test_real_images_are_a_click_away_from_the_samples(opened: Open) -> None:
    page = opened("images")
    grids = page.locator("#samples .grid")
    assert [grids.nth(place).is_visible() for place in range(2)] == [True, False]
    page.locator("#samples .switch button", has_text="Real").click()
    assert [grids.nth(place).is_visible() for place in range(2)] == [False, True]
    assert "training images of class" in str(grids.nth(1).locator(".tiles").first.get_attribute("aria-label"))


def test_few_samples_fill_their_plate_beside_as_many_real_images(browser: Any, tmp_path: Path) -> None:
    run = image_run(tmp_path / "run")
    with np.load(run["samples"] / "samples.npz") as drawn:
        first = np.concatenate([np.flatnonzero(drawn["labels"] == label)[:3] for label in range(10)])
        arrays = {name: values[first] for name, values in drawn.items()}
    np.savez(run["samples"] / "samples.npz", **arrays)
    build(tmp_path / "report.html", **run)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    plate, row = page.locator("#samples .grid").first, page.locator("#samples .tiles").first
    right = "one => one.getBoundingClientRect().right"
    last, edge = row.locator("img").last.evaluate(right), plate.evaluate(right)
    counts = page.locator("#samples .tiles").evaluate_all("rows => rows.map((row) => row.children.length)")
    page.wait_for_function("document.querySelector('[data-more]').hidden")  # nothing is cut off
    page.close()
    assert 0 < edge - last < 30
    assert set(counts) == {3}


def test_bars_of_classes_with_names_of_any_length_begin_in_one_line(browser: Any, tmp_path: Path) -> None:
    run = image_run(tmp_path / "run")
    facts = json.loads((tmp_path / "run/dataset/dataset.json").read_text())
    facts["class_names"] = [*"012345678", "a long name"]
    (tmp_path / "run/dataset/dataset.json").write_text(json.dumps(facts))
    build(tmp_path / "report.html", **run)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    boxes = (
        page.locator(".bars")
        .first.locator(".track")
        .evaluate_all("all => all.map((one) => [one.getBoundingClientRect().left, one.getBoundingClientRect().right])")
    )
    page.close()
    assert len(boxes) == 10
    assert len({tuple(map(round, box)) for box in boxes}) == 1
