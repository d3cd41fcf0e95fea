"""The gallery of the runs on this machine: `runs/index.html`, written anew after every run."""

from __future__ import annotations

from pathlib import Path

from core import storage
from core.errors import UserError
from core.names import inside
from factory.registry import Registry
from factory.run_folder import list_runs
from report import gallery
from report.artifacts import read

PAGE = "index.html"
PLAYGROUNDS = "playground"  # below the folder of runs: where `textdiffusion playground MODEL` writes
SERVICES = "served"  # below the folder of runs: pages of `textdiffusion watch FOLDER --out runs/served/NAME.html`


def write(root: Path, registry: str) -> Path:
    """Writes the gallery of the runs below `root` and returns its path.

    A registry that cannot be read costs only the marks of registered versions.
    """
    out = root / PAGE
    gallery.build(out, _entries(root), _versions(registry), _playgrounds(root), _services(root))
    return out


def publish(root: Path, registry: str, target: str) -> int:
    """Writes the gallery to the folder or gs:// prefix `target`, with the pages that it links to; counts reports."""
    entries, playgrounds = _entries(root), _playgrounds(root)
    reports = {entry.report for entry in entries if entry.report}
    for report in sorted(reports):
        storage.write_bytes(inside(target, report), storage.read_bytes(inside(root, report)))
    for play in playgrounds:
        folder = play.removesuffix(f"/{PAGE}")
        for name in storage.list_files(inside(root, folder)):
            file = f"{folder}/{name}"
            storage.write_bytes(inside(target, file), storage.read_bytes(inside(root, file)))
    services = _services(root)
    for service in services:
        storage.write_bytes(inside(target, service), storage.read_bytes(inside(root, service)))
    page = gallery.render(entries, _versions(registry), playgrounds, services)
    storage.write_bytes(storage.join(target, PAGE), page.encode())
    return len(reports)


def _playgrounds(root: Path) -> list[str]:
    return sorted(page.relative_to(root).as_posix() for page in (root / PLAYGROUNDS).glob(f"*/{PAGE}"))


def _services(root: Path) -> list[str]:
    return sorted(page.relative_to(root).as_posix() for page in (root / SERVICES).glob("*.html"))


def _entries(root: Path) -> list[gallery.Entry]:
    entries = []
    for run in list_runs(root):
        report = run.folder / "report.html"
        address = report.relative_to(root).as_posix() if report.is_file() else ""
        entries.append(gallery.Entry(read(run.facts, **run.folders()), address))
    return entries


def _versions(registry: str) -> list[gallery.Registered]:
    store = Registry(registry)
    try:
        registered = []
        for model in store.models():
            for one, in_service in store.listed(model):
                run = str(one.lineage.get("run") or "")
                registered.append(
                    gallery.Registered(model, one.version, run, one.weights_sha256, in_service, one.provisional)
                )
        return registered
    except (UserError, OSError):
        return []
