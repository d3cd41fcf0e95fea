"""What the site takes from the code when it is built: the reference, and the pictures of the explanations.

A hook of mkdocs: `make docs` calls it. Nothing that it writes is kept in the repository.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
from mkdocs.structure.files import File, Files

from docs.library import library

WIDTH, HEIGHT = 7.2, 3.0  # inches of a picture


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages and pictures to the site."""
    pages = {
        "reference/cli.md": cli,
        "reference/python.md": library,
        "reference/configuration.md": configuration,
        "reference/artifacts.md": artifacts,
    }
    for name, make in pages.items():
        files.append(File.generated(config, name, content="\n".join(make()) + "\n"))
    for name, draw in PICTURES.items():
        files.append(File.generated(config, f"pictures/{name}.svg", content=draw()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Names files of the repository that lie outside of the site, where a link could not lead to them."""

    def named(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), link[2].partition("#")[0]))
        return f"{link[1]} (`{target.removeprefix('../')}`)" if target.startswith("..") else link[0]

    return re.sub(r"(?<!!)\[([^\]]+)\]\((\.\.[^)\s]*)\)", named, markdown)


def cli() -> Iterator[str]:
    """Every command with its arguments, options and examples, as --help has them."""
    from typer.main import get_command

    from textdiffusion.cli.app import make_app

    yield "# Commands\n\nMade from the program itself. `--help` says the same of each; `--json` is for programs.\n"
    for name, command in get_command(make_app()).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        if inner:
            yield f"## {name}\n\n{command.help}\n"
        for key, one in inner.items() if inner else [(name, command)]:
            title = f"{name} {key}" if inner else name
            yield f"{'###' if inner else '##'} {title}\n\n{escape(one.help, quote=False)}\n"
            rows = [row for row in map(_parameter, one.params) if row]
            if rows:
                yield "| argument or option | what it is | default |\n|---|---|---|"
                yield from rows
            examples = (one.epilog or "").partition("Examples:\n")[2]
            yield "\n```sh\n" + "\n".join(line.strip() for line in examples.splitlines()) + "\n```\n"


def _parameter(one: Any) -> str:
    if "--help" in one.opts:
        return ""
    names = " ".join(f"`{name}`" for name in [*one.opts, *one.secondary_opts] if one.param_type_name == "option")
    default = "" if one.default in (None, (), False) or callable(one.default) else f"`{one.default}`"
    return _row(names or f"<code>{one.metavar or one.name}</code>", getattr(one, "help", "") or "", default)


def configuration() -> Iterator[str]:
    """Every setting of every kind of job and of textdiffusion.yaml, with what it may be and its default."""
    from factory import job
    from pipelines.schema import settings_schema, walk

    yield "# Configuration\n\nMade from the models that check it; `textdiffusion init` writes it as commented YAML.\n"
    yield "## textdiffusion.yaml\n\nEach can be set as `TEXTDIFFUSION_<NAME>` too.\n"
    yield from _settings(list(walk(settings_schema())))
    shared: dict[tuple[str, str], str] = {}
    kinds = {
        "Image training": job.ImageTrainingJob,
        "Text training": job.TextTrainingJob,
        "Image sampling": job.ImageSamplingJob,
        "Text sampling": job.TextSamplingJob,
    }
    for title, kind in kinds.items():
        yield f"## {title}\n\n{kind.__doc__}\n"
        schema = kind.model_json_schema()
        settings = list(walk(schema))
        yield from _settings([one for one in settings if len(one.path) == 1 and not one.section])
        for top in [one for one in settings if one.section and len(one.path) == 1]:
            below = [one for one in settings if one.path[0] == top.name and len(one.path) > 1 and not one.section]
            known = shared.setdefault((top.name, repr(below)), title)
            yield f"### {title}: {top.name}\n\n{top.text}\n"
            if known != title:
                yield f"The same as of [{known.lower()}](#{known.lower().replace(' ', '-')}-{top.name}).\n"
                continue
            yield from _settings(below, skip=1)


def _settings(found: list[Any], skip: int = 0) -> Iterator[str]:
    yield "| key | value | default | what it is |\n|---|---|---|---|"
    for one in found:
        default = "required" if one.required else f"`{one.default}`"
        yield _row(f"`{'.'.join(one.path[skip:])}`", one.allowed, default, one.text)
    yield ""


def artifacts() -> Iterator[str]:
    """Steps and what each leaves, from the compiled pipelines; the metrics, from the report's glossary."""
    from pipelines.checks import read_spec, tasks
    from pipelines.compile import compile_job
    from pipelines.jobs import load_job
    from pipelines.machines import load_machines
    from report.metrics import DIRECTIONS, GLOSSARY, SHARE

    yield "# Artifacts\n\nMade from the compiled pipelines.\n\n## A run's folder\n"
    yield "```text\nruns/<pipeline>/<run id>/      in the cloud gs://BUCKET/<pipeline>/<run id>/"
    yield "  run.json                     job, status, steps with state, seconds and artifacts, configuration, gate"
    yield "  metrics.json                 {name: {value, floor, n, judge}}"
    yield "  report.html                  the report, one file\n  steps/<step>/                artifacts and log.txt"
    yield "runs/index.html                the gallery of all runs\n```\n"
    for name, search in (("digits", False), ("digits", True), ("pydoc", False), ("mnist-sampling", False)):
        spec = read_spec(
            compile_job(load_job(name, search=search), image="textdiffusion:docs", machines=load_machines({}))
        )[0]
        yield f"## Pipeline {spec['pipelineInfo']['name']}\n\n| step | artifact | type |\n|---|---|---|"
        for _, step, task in tasks(spec):
            outputs = spec["components"][task["componentRef"]["name"]].get("outputDefinitions", {}).get("artifacts", {})
            for artifact, kind in outputs.items():
                if "executorLabel" in spec["components"][task["componentRef"]["name"]]:
                    yield _row(f"`{step}`", f"`{artifact}`", kind["artifactType"]["schemaTitle"])
        yield ""
    yield "## Metrics\n\nEvery one stands beside its floor: the same metric for real data at the same count.\n"
    yield "| metric | means | unit | direction |\n|---|---|---|---|"
    for one in GLOSSARY.values():
        meaning = f"**{one.label}.** {one.explanation}"
        yield _row(f"`{one.name}`", meaning, "%" if one.unit == SHARE else one.unit, DIRECTIONS[one.better])


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "&#124;") for cell in cells) + " |"


def _preconditioning() -> bytes:
    import torch

    from core.noise import coefficients

    sigma = torch.logspace(-2, 2, 200, dtype=torch.float64)
    wrap = coefficients("edm", sigma, 0.6)
    lines = {"$c_{skip}$": wrap.skip, "$c_{out}$": wrap.out, "$c_{in}$": wrap.in_}
    return _plot(sigma, lines, "σ", "coefficient", logx=True)


def _grids() -> bytes:
    from core import noise

    table = noise.linear_beta_sigmas(1000, 1e-4, 2e-2)
    lines = {
        "karras": noise.karras_sigmas(16, 0.02, 40.0, 7.0),
        "flow": noise.flow_sigmas(16, 0.02, 40.0),
        "ddpm": noise.schedule_sigmas(16, table),
    }
    lines = {name: values[:-1] for name, values in lines.items()}
    return _plot(np.arange(16), lines, "step", "σ", logy=True, marker="o")


def _noisy_digits() -> bytes:
    import matplotlib.pyplot as plt
    from sklearn.datasets import load_digits

    scans = load_digits().images[:8] / 8 - 1
    normal = np.random.default_rng(0).standard_normal(scans.shape)
    sigmas = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
    figure, axes = plt.subplots(len(sigmas), 8, figsize=(WIDTH, 5.2))
    for row, sigma in zip(axes, sigmas, strict=True):
        for place, (one, noise) in enumerate(zip(scans, normal, strict=True)):
            row[place].imshow((one + sigma * noise) / (1 + sigma**2) ** 0.5, cmap="gray", vmin=-1.5, vmax=1.5)
            row[place].set(xticks=[], yticks=[])
        row[0].set_ylabel(f"σ = {sigma:g}", rotation=0, ha="right", va="center", color="gray")
    return _saved(figure)


def _gamma() -> bytes:
    import torch

    gamma = torch.linspace(-8, 12, 200)
    lines = {"α = sigmoid(−γ)^½": torch.sigmoid(-gamma) ** 0.5, "σ = sigmoid(γ)^½": torch.sigmoid(gamma) ** 0.5}
    return _plot(gamma, lines, "γ = log σ²/α²", "")


def _plot(x: Any, lines: Mapping[str, Any], x_label: str, y_label: str, *, logx: bool = False, logy: bool = False,
          marker: str = "") -> bytes:  # fmt: skip
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    for name, y in lines.items():
        axes.plot(np.asarray(x), np.asarray(y), label=name, marker=marker, markersize=4)
    axes.set(xlabel=x_label, ylabel=y_label, xscale="log" if logx else "linear", yscale="log" if logy else "linear")
    axes.legend(frameon=False, labelcolor="gray")
    axes.tick_params(colors="gray")
    axes.xaxis.label.set_color("gray")
    axes.yaxis.label.set_color("gray")
    for side in axes.spines.values():
        side.set_color("gray")
    return _saved(figure)


def _saved(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    stream = io.BytesIO()
    figure.savefig(stream, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return stream.getvalue()


PICTURES = {
    "preconditioning": _preconditioning,
    "sigma-grids": _grids,
    "noisy-digits": _noisy_digits,
    "gamma": _gamma,
}
