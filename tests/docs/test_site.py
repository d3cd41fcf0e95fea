"""The documentation: the site builds strictly, core needs nothing around it, the notebook runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BLOCKED = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        extra = ("kfp", "gcsfs", "croniter", "google.cloud", "google.auth", "google.api_core")
        if name.startswith(extra):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built strictly."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_the_site_has_every_command_and_setting(site: Path) -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html")}
    assert 'id="schedule-create"' in pages["cli"]
    assert "textdiffusion generate --model mnist-small --class 7" in re.sub("<[^>]+>", "", pages["cli"])
    assert "process.sigma_data" in pages["configuration"]
    assert "system.HTML" in pages["artifacts"]
    assert all(f'id="td{name.lower()}"' in pages["python"] for name in ("images", "train", "imagediffusion"))
    assert "<math" in (site / "explanation/text.html").read_text(encoding="utf-8")
    assert (site / "pictures/gamma.svg").stat().st_size > 5_000


IN_DARK_TOO = {"index", "benchmarks", "configuration", "text"}  # pictures, tables, settings and formulas, code


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_site(scheme: str, site: Path, browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    # Two things of the theme: a nameless <nav> on every block of code, wide tables that scroll by pointer alone.
    rules = {name: {"enabled": False} for name in ("landmark-unique", "scrollable-region-focusable")}
    context = browser.new_context(color_scheme=scheme)
    page, found = context.new_page(), []
    pages = sorted(set(site.rglob("*.html")) - {site / "404.html"})  # that one cannot load its style from file://
    for path in pages if scheme == "light" else [one for one in pages if one.stem in IN_DARK_TOO]:
        page.goto(path.as_uri())
        page.wait_for_timeout(100)
        for one in axe.run(page, options={"resultTypes": ["violations"], "rules": rules}).response["violations"]:
            nodes = [node["html"][:160] for node in one["nodes"] if "<math" not in node["html"]]  # axe reads no MathML
            found += [(path.name, one["id"], html) for html in nodes]
    context.close()
    assert found == []


def test_opened_as_a_file_it_has_no_search_box_that_finds_nothing(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    assert page.locator(".md-search").count() == 1
    assert not page.locator(".md-search").is_visible()
    page.close()


def test_wide_tables_scroll_to_their_last_column_by_keyboard(site: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 480, "height": 800})
    page.goto((site / "benchmarks.html").as_uri())
    page.wait_for_timeout(300)
    wide = page.locator(".md-typeset__scrollwrap[tabindex='0']")
    assert wide.count() > 0
    first = wide.first
    first.evaluate("(one) => one.scrollTo(1e5, 0)")
    edge, column = first.bounding_box(), first.locator("th").last.bounding_box()
    assert column["x"] + column["width"] <= edge["x"] + edge["width"] + 1
    page.close()


def test_core_imports_without_kfp_and_google() -> None:
    program = (
        BLOCKED
        + """
import pkgutil, core
names = [module.name for module in pkgutil.walk_packages(core.__path__, "core.")]
for name in names:
    __import__(name)
print(len(names))
"""
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 60


def test_a_command_that_needs_the_extra_says_how_to_install_it(tmp_path: Path) -> None:
    script = (
        BLOCKED + f"sys.path.insert(0, {str(ROOT)!r})\nfrom textdiffusion.cli.app import main\nmain(['run', 'digits'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: kfp is not installed: pip install 'textdiffusion[pipelines]'\n"


@pytest.mark.slow
def test_the_notebook_trains_and_samples_with_core_alone(tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "notebooks/core.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    code = "\n".join(cells)
    for long, quick in (
        ("EXAMPLES = 10_000", "EXAMPLES = 64"),
        ("STEPS = 16", "STEPS = 2"),
        ("judge_epochs=5", "judge_epochs=0.2"),
    ):
        assert long in code
        code = code.replace(long, quick)
    script = BLOCKED + f"sys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(by_hand.shape)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("torch.Size([4, 1, 28, 28])")
    assert (tmp_path / "digits-model/model.json").is_file()


@pytest.mark.slow
def test_the_page_of_the_python_api_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/core-alone.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S))
    for long, quick in (
        ("(data, minutes=5)", "(data, examples=64)"),
        ("(model, data)", "(model, data, 20, judge_epochs=0.2, sample={'steps': 2})"),
        ("examples=20_000", "examples=64"),
        ("(text, minutes=5)", "(text, examples=8, network={'width': 16, 'depth': 1, 'heads': 1})"),
    ):
        assert long in code
        code = code.replace(long, quick)
    script = BLOCKED + f"sys.path.insert(0, {str(ROOT)!r})\n" + code
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "sevens.png").read_bytes().startswith(b"\x89PNG")
