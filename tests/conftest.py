"""What tests of several parts share."""

from __future__ import annotations

import multiprocessing.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.storage import scratches

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each, for the test and the processes it starts: see `make test`
    os.environ.setdefault("OMP_NUM_THREADS", "1")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
# Two views of the address bar and a renderer in reserve, for every context, cost more than most tests' pages. Only the
# last list of features counts, so Playwright's own are repeated.
UNUSED = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "SpareRendererForSitePerProcess",
    "DestroyProfileOnBrowserClose", "HttpsFirstBalancedModeAutoEnable", "HttpsUpgrades", "LensOverlay", "MediaRouter",
    "NetworkTimeServiceQuerying", "OptimizationHints", "PaintHolding", "PreconnectToSearch",
)  # fmt: skip
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", f"--disable-features={','.join(UNUSED)}",
]  # fmt: skip


LONGEST = ("pipelines/vertex", "serving", "docs", "local", "core/processes", "torture")  # files of minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: else one worker is left with the last of them while the others wait."""
    here = Path(__file__).parent

    def later(item: pytest.Item) -> bool:
        return not item.path.relative_to(here).as_posix().startswith(LONGEST)

    items.sort(key=later)


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the processes of the tests leave in the temporary folder, killed ones above all, goes with this process."""
    tmp_path_factory.getbasetemp()  # stays where it is: what a failed test wrote can be looked at
    folder, _ = scratches.keep("tests")
    folder.chmod(0o1777)  # some are of another user, as in a container
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    multiprocessing.util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-1000)  # after its own


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
