"""What the image is made of, and its entry point; `make test-container` runs it in an engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.__main__ import main
from components.inside import checks
from pipelines.compile import INSIDE, ROOT

DOCKERFILE = (ROOT / "containers" / "Dockerfile").read_text()


def test_all_that_is_copied_into_the_image_counts_for_its_tag_and_reaches_the_build() -> None:
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    names = {name.split("/")[0] for part in copied for name in part}
    assert names == set(INSIDE)
    kept = {line[2:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!/")}
    assert kept == set(INSIDE)


def test_every_step_is_served_by_name_and_runs(tmp_path: Path) -> None:
    dataset = {"name": "dataset", "type": {"schemaTitle": "system.Dataset"}, "uri": str(tmp_path / "dataset")}
    executor_input = {
        "inputs": {
            "parameterValues": {"modality": "images", "data_config": {"source": "digits"}, "data_fingerprint": ""}
        },
        "outputs": {
            "artifacts": {"dataset": {"artifacts": [{**dataset, "metadata": {}}]}},
            "outputFile": str(tmp_path / "output.json"),
        },
    }
    assert main(["prepare-data", "--executor_input", json.dumps(executor_input)]) == 0
    said = json.loads((tmp_path / "output.json").read_text())["artifacts"]["dataset"]["artifacts"][0]
    assert said["metadata"]["content_sha256"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian", "--executor_input", "{}"], "error: step 'trian': there is none; allowed: check-data"),
        (["train", "--executor_input", "{"], "error: --executor_input: not JSON"),
        (["train"], "error: expected: steps | doctor"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr().err
    assert captured.startswith(line)
    assert captured.count("\n") == 1


def test_doctor_inside_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    monkeypatch.setenv("TEXTDIFFUSION_WORK", str(tmp_path / "missing"))
    states = {row["check"]: row["state"] for row in checks()}
    assert {name for name, state in states.items() if state == "missing"} == {"user", "work"}
    monkeypatch.setattr("os.getuid", lambda: 10001)
    monkeypatch.setenv("TEXTDIFFUSION_WORK", str(tmp_path))
    assert {row["state"] for row in checks()} == {"ok"}


def test_doctor_inside_finds_a_gpu_that_torch_has_no_kernels_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100-SXM2-16GB")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    torch_row = next(row for row in checks() if row["check"] == "torch")
    assert torch_row["state"] == "missing"
    assert "Tesla V100-SXM2-16GB is sm_70, and torch" in torch_row["found"]


def test_the_bill_of_materials_is_valid_cyclonedx_and_lists_what_is_installed() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = subprocess.run(
        [sys.executable, str(ROOT / "containers" / "sbom.py")], capture_output=True, text=True, check=True
    ).stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    import torch

    versions = {part["purl"] for part in json.loads(text)["components"]}
    assert f"pkg:pypi/torch@{torch.__version__.split('+')[0]}" in {purl.split("%2B")[0] for purl in versions}


def test_pip_is_upgraded_before_it_installs_the_lock_as_in_the_makefile() -> None:
    assert DOCKERFILE.index("pip install --quiet --upgrade pip") < DOCKERFILE.index(
        "pip install --quiet --require-hashes"
    )


def test_both_stages_begin_from_a_base_that_is_named_by_its_digest() -> None:
    """A tag may be moved to another image; `make image BASE_IMAGE=...` is the only other way in."""
    (base,) = re.findall(r"^ARG BASE_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"[a-z0-9./-]+(:[\w.-]+)?@sha256:[0-9a-f]{64}", base)
    assert {line.split()[1] for line in re.findall(r"^FROM .*$", DOCKERFILE, re.MULTILINE)} == {"${BASE_IMAGE}"}
    assert not re.findall(r"^COPY --from=(?!build )", DOCKERFILE, re.MULTILINE)
