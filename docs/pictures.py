"""The pictures of README.md and of the first page, from runs on this machine:

    python -m docs.pictures report RUN/report.html     docs/images/report.png, the top of an image run's report
    python -m docs.pictures digits RUN                 docs/images/digits.png, noise to digits and samples, none picked
    python -m docs.pictures text RUN/report.html       docs/images/text.png, a text run's player at four noise levels

Needs Chromium and the extra `dev`, but for `digits`.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from core.images.pictures import enlarged, grid

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1200, 1180
LEVELS = (0.0, 0.3, 0.6, 1.0)  # of the way from noise to text


def report(page: Path) -> Image.Image:
    """The top of the report: heading, player, key metrics and the samples."""
    with _opened(page) as shown:
        return Image.open(io.BytesIO(shown.screenshot()))


def text(page: Path) -> Image.Image:
    """The text player of a report at four moments, two beside two."""
    frames = []
    with _opened(page) as shown:
        slider, plate = shown.locator(".player input").first, shown.locator(".player .plate").first
        plate.evaluate("(one) => { one.style.height = '15rem'; one.style.overflow = 'hidden'; }")
        last = int(slider.get_attribute("max"))
        for level in LEVELS:
            slider.fill(str(round(level * last)))
            frames.append(Image.open(io.BytesIO(plate.screenshot())))
    width, height = frames[0].width + 8, frames[0].height + 8
    made = Image.new("RGB", (2 * width - 8, 2 * height - 8), "white")
    for place, one in enumerate(frames):
        made.paste(one, (place % 2 * width, place // 2 * height))
    return made


def digits(run: Path) -> Image.Image:
    """Ten samples at every second noise level, a row each, and three more rows of samples."""
    with np.load(run / "steps/sample/trajectory.npz") as path, np.load(run / "steps/sample/samples.npz") as samples:
        frames = path["images"][:, :20]
        chosen = frames[np.linspace(0, len(frames) - 1, 7).round().astype(int)]
        rows = np.concatenate([*chosen, samples["images"][20:80]])
    return enlarged(grid(rows, 20, shade=40), 560)


class _opened:  # noqa: N801  read as a function
    """A page in Chromium, still."""

    def __init__(self, page: Path) -> None:
        self._page = page

    def __enter__(self):  # type: ignore[no-untyped-def]  # playwright is no dependency of the docs
        from playwright.sync_api import sync_playwright

        self._started = sync_playwright().start()
        browser = self._started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        shown.goto(self._page.absolute().as_uri())
        shown.wait_for_timeout(500)
        return shown

    def __exit__(self, *_: object) -> None:
        self._started.stop()


def main() -> None:
    """Writes one picture; see the top of this file."""
    name, place = sys.argv[1:]
    made = {"report": report, "digits": digits, "text": text}[name](Path(place))
    made.save(IMAGES / f"{name}.png", optimize=True)
    print(IMAGES / f"{name}.png", made.size)


if __name__ == "__main__":
    main()
