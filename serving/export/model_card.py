"""The model card of a repository: what its report says, in Markdown, with the front matter that the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from core.evaluation import read_metrics
from factory.versions import MANIFEST, Version
from report.metrics import ordered, row
from report.words import count

IMAGES, TEXTS = 40, 3  # samples that are shown
FLOOR = (
    "A floor is the same metric for real data against real data at the same count: the best that a perfect model could"
    " be expected to reach. Only values of the same judge can be compared."
)
_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|!])")
_LIMITS = (
    "No class, size or text other than those of its training data can be expected of it.",
    "It was measured with the settings of sampling that `manifest.json` has under `lineage.sample`; others were not.",
    "The judge is a small network trained on the same data; it sees what that data told it to see.",
    "It has no filter of content, and was not examined for bias: samples repeat what is in the data.",
)


def written(
    version: Version,
    description: Mapping[str, Any],
    texts: Sequence[str],
    script: str,
    data: Mapping[str, Any],
    repository: str,
    licence: str,
) -> str:
    """The card.

    Args:
        version: of the registry, or one made up for a model that has none.
        description: model.json.
        texts: samples of a model of text; empty for images, which are in samples.png.
        script: name of the script beside it.
        data: the section `data` of the job that trained it; empty where it is not known.
        repository: USER/REPO.
        licence: of the weights, by the Hub's name; empty if none was stated.
    """
    images = description.get("modality", "images") == "images"
    return "\n\n".join(
        (
            _front_matter(images, licence),
            f"# {plain(repository.split('/')[1])}",
            _summary(version, description, images),
            _samples(texts, images),
            _use(images, script, repository),
            _metrics(version),
            _lineage(version, data),
            f"## Licence\n\n{_licence(licence)}",
            "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(version)),
        )
    ) + "\n"  # fmt: skip


def plain(text: object) -> str:
    """Words from outside as Markdown shows them: one line, no sign of Markdown or HTML in force."""
    return _SIGNS.sub(r"\\\1", " ".join(str(text).split()))


def _front_matter(images: bool, licence: str) -> str:
    facts: dict[str, Any] = {"license": licence} if licence else {}
    facts |= {
        "library_name": "textdiffusion",
        "pipeline_tag": "unconditional-image-generation" if images else "text-generation",
        "tags": ["diffusion", "safetensors", "textdiffusion"],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _summary(version: Version, description: Mapping[str, Any], images: bool) -> str:
    parameters = f"{count(description.get('parameters'))} parameters"
    if not images:
        context = (description.get("model") or {}).get("context")
        return f"A diffusion model of text with {parameters} and a context of {count(context)} tokens."
    shape = description.get("data") or {}
    colours = "in colour" if shape.get("channels") == 3 else "in grey"
    names = [plain(name) for name in shape.get("class_names") or ()]
    known = f" Classes: {', '.join(names)}." if names else ""
    size = f"{shape.get('height')} × {shape.get('width')}"
    return f"A diffusion model of images of {size} pixels {colours}, with {parameters}.{known}"


def _samples(texts: Sequence[str], images: bool) -> str:
    head = "## Samples\n\nThe first ones of seed 0; none was chosen."
    if images:
        return f"{head}\n\n![Samples of all classes in turn](samples.png)"
    shown = ("\n".join(f"    {line}" for line in text.split("\n")) for text in texts)
    return head + "".join(f"\n\nSample {number}:\n\n{one}" for number, one in enumerate(shown, start=1))


def _use(images: bool, script: str, repository: str) -> str:
    wish = "--count 8" if images else "--prompt 'The '"
    return (
        "## Use\n\n```sh\npip install textdiffusion\n"
        f"textdiffusion generate --model hf://{repository} {wish}\n"
        f"textdiffusion serve hf://{repository}                     # HTTP, with the extra `serving`\n```\n\n"
        f"Without that package: `{script}` is about fifteen lines on torch and safetensors;"
        f" download the repository and run it there."
        f" No file holds a pickle; `{MANIFEST}` states the SHA-256 of every file of the model."
    )


def _metrics(version: Version) -> str:
    measured = read_metrics(version.metrics, MANIFEST)
    names = ordered(name for name, metric in measured.items() if metric.value is not None)
    if not names:
        return "## Metrics\n\nThis model was not measured."
    lines = ["| metric | value | floor | n | |", "|---|---|---|---|---|"]
    for name in names:
        one = row(name, measured[name])
        value = f"{one['value']} ± {one['sd']}" if one["sd"] else one["value"]
        cells = (one["title"], value, one["floor"] or "–", one["n"] or "–", one["direction"])
        lines.append(f"| {' | '.join(plain(cell) for cell in cells)} |")
    return f"## Metrics\n\n{FLOOR}\n\n" + "\n".join(lines)


def _lineage(version: Version, data: Mapping[str, Any]) -> str:
    known = version.lineage
    facts = {
        "version": version.name if version.version else "of no registry",
        "made": version.created,
        "run": known.get("run"),
        "data": data.get("source"),
        "data, SHA-256": known.get("data_hash"),
        "code": known.get("code_version"),
        "seed": _whole(known.get("seed")),
        "examples seen": _whole(known.get("examples_seen")),
        "trained on": known.get("device"),
        "weights, SHA-256": version.weights_sha256,
    }
    lines = [f"| {name} | {plain(value)} |" for name, value in facts.items() if value not in (None, "")]
    return "## Lineage\n\n| | |\n|---|---|\n" + "\n".join(lines)


def _whole(value: object) -> str | None:
    return count(value) if isinstance(value, int | float) else None


def _licence(licence: str) -> str:
    stated = f"The weights: {licence}." if licence else "None was stated: ask before you use the weights."
    return f"{stated} What the data they were trained on allow is a question of its own."


def _limits(version: Version) -> list[str]:
    found = []
    if version.provisional:
        found.append("Provisional: it did not reach what its registry asks of a model in service.")
    doubts = {metric.doubt for metric in read_metrics(version.metrics, MANIFEST).values() if metric.doubt}
    found += [f"Metrics in doubt: {plain(doubt)}." for doubt in sorted(doubts)]
    if (version.lineage.get("sample") or {}).get("feedback"):
        found.append(
            "The metrics and pictures are with `feedback`, and so is the package; the script draws without it."
        )
    return [*found, *_LIMITS]
