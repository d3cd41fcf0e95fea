"""What a person writes: jobs, YAML, overrides, arguments."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.torture.material import NASTY_YAML, SCALARS, VALUES, mutated
from tests.torture.trial import require


def predefined() -> dict[str, dict[str, Any]]:
    from core.config import read_yaml
    from pipelines.jobs import CONFIGS, job_names

    return {name: read_yaml(CONFIGS / f"{name}.yaml") for name in job_names()}


def job_values(folder: Path) -> st.SearchStrategy[Any]:
    """A predefined job with some keys replaced, removed or added."""
    jobs = predefined()

    @st.composite
    def build(draw: st.DrawFn) -> dict[str, Any]:
        values = json.loads(json.dumps(jobs[draw(st.sampled_from(sorted(jobs)))]))
        for _ in range(draw(st.integers(1, 4))):
            place = values
            while True:
                keys = sorted(place)
                key = draw(st.one_of(st.sampled_from(keys), st.text(max_size=6))) if keys else "x"
                if isinstance(place.get(key), dict) and draw(st.booleans()):
                    place = place[key]
                    continue
                break
            if draw(st.booleans()):
                place[key] = draw(VALUES)
            else:
                place.pop(key, None)
        return values

    return build()


def feed_job(values: Any, folder: Path) -> None:
    from factory.job import parse_job
    from pipelines.jobs import check_numbers

    job = parse_job(values, "job.yaml")
    check_numbers(job.model_dump(mode="json"), "job.yaml")


def yaml_text(folder: Path) -> st.SearchStrategy[Any]:
    texts = [json.dumps(values) for values in predefined().values()]
    sources = [path.encode() for path in texts] + [b"a: 1\nb: [1, 2]\nc: {d: x}\n"]
    return st.one_of(
        mutated(sources),
        NASTY_YAML.map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    )


def feed_yaml(data: bytes, folder: Path) -> None:
    from core.config import read_yaml
    from factory.job import parse_job

    path = folder / "job.yaml"
    path.write_bytes(data)
    parse_job(read_yaml(path), "job.yaml")


def overrides(folder: Path) -> st.SearchStrategy[Any]:
    key = st.one_of(
        st.sampled_from(["train.batch_size", "train.minutes", "data.data_dir", "model", "sample.labels", "a"]),
        st.text(max_size=12),
    )
    value = st.one_of(st.text(max_size=20), NASTY_YAML, SCALARS.map(str))
    text = st.one_of(st.tuples(key, value).map("=".join), st.text(max_size=20))
    return st.lists(text, min_size=1, max_size=3)


def feed_overrides(overrides: list[str], folder: Path) -> None:
    from pipelines.jobs import load_job

    load_job("digits", overrides)


COMMANDS = (
    "jobs",
    "compile",
    "run",
    "runs",
    "show",
    "lineage",
    "compare",
    "report",
    "download",
    "models",
    "promote",
    "rollback",
    "generate",
    "schedule",
    "monitor",
)


def arguments(folder: Path) -> st.SearchStrategy[Any]:
    word = st.one_of(
        st.sampled_from(
            [
                "digits",
                "latest",
                "../../etc",
                "/etc/passwd",
                "a@b",
                "a@²",
                "a@" + "9" * 5000,
                "@",
                "-",
                "--",
                "--json",
                "--help",
                "--set",
                "train.batch_size=0",
                "--model",
                "--class",
                "7",
                "--from",
                "--only",
                "sample",
                "--runner",
                "x.yaml",
                "list",
                "--reason",
                "gs://",
                "\ud800",
                "\x00",
                "x" * 5000,
            ]
        ),
        st.text(max_size=8),
    )
    return st.tuples(st.one_of(st.sampled_from(COMMANDS), st.text(max_size=6)), st.lists(word, max_size=4))


def feed_arguments(value: tuple[str, list[str]], folder: Path) -> None:
    from unittest import mock

    from textdiffusion.cli import app as cli

    command, rest = value
    if command == "run":
        rest = ["no-such-job", *rest]  # what a valid run does is not this test's subject, and takes minutes
    if command == "generate":
        rest = ["--model", "no-such-model", *rest]
    quiet = {name: text for name, text in os.environ.items() if not name.startswith(("TEXTDIFFUSION_", "GOOGLE_"))}
    out = io.StringIO()
    with (
        mock.patch.dict(os.environ, quiet, clear=True),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        try:
            cli.main([command, *rest])
        except SystemExit as ended:
            require(ended.code in (0, 1, 2), f"exit code {ended.code!r}")
    require("Traceback" not in out.getvalue(), "a traceback")
