"""Prints what is installed as a CycloneDX 1.6 bill of materials: Python distributions and Debian packages.

Run with the interpreter whose packages it lists. Same packages, same bytes: there is no time and no serial number.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import distributions
from typing import Any
from urllib.parse import quote


def bill() -> dict[str, Any]:
    """The bill of materials."""
    parts = {part["purl"]: part for part in (*_python(), *_debian())}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "textdiffusion"}},
        "components": [parts[purl] for purl in sorted(parts)],
    }


def _python() -> Iterator[dict[str, Any]]:
    for found in distributions():
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        licence = found.metadata.get("License-Expression")
        part = _part(name, found.version, f"pkg:pypi/{name}@{quote(found.version)}")
        yield part | ({"licenses": [{"expression": licence}]} if licence else {})


def _debian() -> Iterator[dict[str, Any]]:
    if shutil.which("dpkg-query") is None:
        return
    rows = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name, version, architecture in (row.split("\t") for row in rows):
        yield _part(name, version, f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}")


def _part(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    print(json.dumps(bill(), indent=1))
