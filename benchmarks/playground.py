"""The playground's first picture: milliseconds from opening the page in a new Chromium, phase by phase.

    textdiffusion playground digits --out play
    python -m benchmarks.playground --page play --rounds 5

Each round is a browser of its own, so nothing is cached. `scripts`: runtime.js and model.js are read; `model`: ONNX
Runtime is compiled and the graph loaded; `first`: noise has been through the network once; `image`: all is drawn.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks.results import parser, publish

PHASES = ("scripts", "model", "first", "image")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
MARKS = "Object.fromEntries(performance.getEntriesByType('mark').map((mark) => [mark.name, mark.startTime]))"


def opened(page: Path, program: str) -> dict[str, float]:
    """Milliseconds from opening to each phase, in a new browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto((page.absolute() / "index.html").as_uri())
        tab.wait_for_function("document.body.dataset.drawn !== undefined", timeout=120_000)
        marks: dict[str, float] = tab.evaluate(MARKS)
        browser.close()
    return {phase: marks[phase] for phase in PHASES}


def rows_of(rounds: list[dict[str, float]]) -> list[dict[str, Any]]:
    """A row of the table for each phase: median, fastest and slowest."""
    values = {phase: [one[phase] for one in rounds] for phase in PHASES}
    return [
        {"until": phase, "median ms": statistics.median(times), "least ms": min(times), "most ms": max(times)}
        for phase, times in values.items()
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--page", type=Path, required=True, help="folder that `textdiffusion playground` wrote")
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    program = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if program is None:
        raise SystemExit("no Chromium on this machine: apt-get install chromium")
    rounds = [opened(given.page, program) for _ in range(given.rounds)]
    publish("playground", f"{given.page.name}, {given.rounds} new browsers.", rows_of(rounds), given.out)


if __name__ == "__main__":
    main()
