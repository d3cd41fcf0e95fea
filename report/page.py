"""Puts the sections of a report in order and renders them into one page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.names import inside
from report import classes, image_sections, metrics, neighbours, search, sections, text_sections
from report.artifacts import Artifacts
from report.lineage import lineage
from report.sections import Section, absent
from report.training import training

RELOADED = 15  # seconds between two looks of a browser at the report of a run that goes on
TEMPLATES = Path(__file__).parent / "templates"
Builder = Callable[[Artifacts], Section]
Result = TypeVar("Result")

SEARCH: tuple[str, str, Builder] = ("search", search.TITLE, search.search)
IMAGES: list[tuple[str, str, Builder]] = [
    ("samples", "Samples", image_sections.samples),
    ("metrics", "Metrics", metrics.metrics),
    ("classes", "Classes", classes.classes),
    ("neighbours", "Nearest training images", neighbours.neighbours),
    SEARCH,
    ("training", "Training", training),
    ("data", "Data", image_sections.data),
    ("lineage", "Lineage", lineage),
    ("steps", "Steps", sections.timeline),
    ("configuration", "Configuration", sections.configuration),
    ("environment", "Environment", sections.environment),
]
TEXT: list[tuple[str, str, Builder]] = [
    ("samples", "Samples", text_sections.samples),
    ("metrics", "Metrics", metrics.metrics),
    ("likelihood", "Likelihood", text_sections.likelihood),
    ("frontier", "Frontier", text_sections.frontier),
    ("fusion", "Fusion", text_sections.fusion),
    ("context", "Context learned", text_sections.context),
    SEARCH,
    ("training", "Training", training),
    ("data", "Data", text_sections.data),
    ("lineage", "Lineage", lineage),
    ("steps", "Steps", sections.timeline),
    ("configuration", "Configuration", sections.configuration),
    ("environment", "Environment", sections.environment),
]


def render(artifacts: Artifacts) -> str:
    """The whole page as HTML text."""
    text = artifacts.modality == "text"
    wanted = [one for one in (TEXT if text else IMAGES) if one is not SEARCH or artifacts.search]
    built = [_guarded(artifacts, *one) for one in wanted]
    head = _or_fault(artifacts, "The heading", metrics.heading) or {
        "title": "Run",
        "description": "",
        "facts": [],
        "verdict": {},
        "run_id": "",
    }
    path = _or_fault(artifacts, "The denoising path", text_sections.path if text else image_sections.path)
    rows = _or_fault(artifacts, "The metrics", metrics.metric_rows) or []
    return fill(
        "page.html",
        scripts=("page.js", "parts.js", "report.js"),
        styles=("report.css",),
        what="report",
        modality=artifacts.modality,
        head=head,
        path=path,
        key_metrics=rows[:4],
        sections=built,
        faults=list(dict.fromkeys(artifacts.faults)),
        live=RELOADED if artifacts.run.get("status") == "running" else 0,
    )


def fill(template: str, *, scripts: Sequence[str], styles: Sequence[str], **values: object) -> str:
    """A page as HTML text: `template` with its style and its one script, whose hash its security policy names."""
    script = '"use strict";\n(() => {\n' + "\n".join(_read(name) for name in scripts) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    style = Markup("\n".join(_read(name) for name in styles))
    page = templates().get_template(template)
    return page.render(style=style, script=Markup(script), script_hash=digest, **values)


def _read(name: str) -> str:
    return inside(TEMPLATES, name).read_text(encoding="utf-8")


@cache
def templates() -> Environment:
    """Templates with everything escaped; an undefined name is an error, not an empty string."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def drawn(section: Section) -> Section:
    """A section whose `body` is HTML; one without a template as it is."""
    if not section.template:
        return section
    body = templates().get_template(section.template).render(section=section, **section.data)
    return replace(section, data={"body": Markup(body)})


def _guarded(artifacts: Artifacts, id: str, title: str, build: Builder) -> Section:
    """A section, or a quiet note when its artifact holds something nobody expected."""
    try:
        return drawn(build(artifacts))  # once and here, so that a surprise in the data costs this section alone
    except Exception as error:  # the report of a broken run is when a report is needed most
        return absent(id, title, f"This part could not be drawn ({type(error).__name__}).")


def _or_fault(artifacts: Artifacts, what: str, build: Callable[[Artifacts], Result]) -> Result | None:
    try:
        return build(artifacts)
    except Exception as error:  # as above
        artifacts.faults.append(f"{what} could not be drawn ({type(error).__name__}).")
        return None
