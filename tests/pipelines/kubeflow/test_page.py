"""What docs/how-to/kubeflow.md says: its settings are valid, its table has every command, its requests are asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml

from pipelines.machines import load_machines
from pipelines.settings import load_settings
from textdiffusion.cli.app import make_app

PAGE = (Path(__file__).parents[3] / "docs/how-to/kubeflow.md").read_text(encoding="utf-8")
ELSEWHERE = {
    "deploy", "monitor", "cancel", "retry", "runs", "show", "compare", "download", "lineage", "schedule", "models",
    "promote", "rollback", "generate", "doctor", "gc", "probe", "manifest",
}  # fmt: skip


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
def test_settings_on_the_page_are_valid(block, tmp_path):
    (tmp_path / "textdiffusion.yaml").write_text(block)
    settings = load_settings(file=tmp_path / "textdiffusion.yaml", environment={})
    assert set(yaml.safe_load(block)) <= set(type(settings).model_fields)
    assert set(settings.machines) <= set(load_machines(settings.machines))


def test_every_command_that_a_service_answers_is_in_the_table():
    table = PAGE.partition("## Commands on both services")[2].partition("##")[0]
    first = " ".join(line.split("|")[1] for line in table.split("\n") if line.startswith("|"))
    named = {words.split()[0] for words in re.findall(r"`([^`]+)`", first) if not words.startswith("-")}
    assert named >= ELSEWHERE
    assert named - {"run", "list", "pause", "resume", "delete"} <= set(typer.main.get_command(make_app()).commands)


def test_requests_in_the_table_are_those_of_the_rows():
    for name, cpu, memory in re.findall(r"^\| `(\w+)` \| (\d+) CPU, ([\d.]+) GB", PAGE, re.M):
        assert load_machines()[name].requested() == (int(cpu), round(1000 * float(memory)))
