"""What tests of several parts share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each, for the test and the processes it starts: see `make test`
    os.environ.setdefault("OMP_NUM_THREADS", "1")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium, if there is one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()
