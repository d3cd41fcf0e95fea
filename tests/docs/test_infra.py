"""The Terraform module makes what the setup page makes by hand, with the same rights and no more."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
PAGE = (ROOT / "docs" / "vertex-setup.md").read_text(encoding="utf-8").replace("\\\n", " ")
WHO = {"serviceAccount:$SA": "pipelines", "serviceAccount:$BUILD": "build", "serviceAccount:$CI": "ci", "$ME": "people"}
TABLES = {"projects": "project_bindings", "storage": "bucket_bindings", "artifacts": "repository_bindings"}
needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not on PATH")


def text() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(INFRA.glob("*.tf")))


def terraform(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = ["terraform", f"-chdir={folder}", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)


def by_hand() -> set[tuple[str, str, str]]:
    """(what it is on, who, role) of every binding that the page types."""
    found = set()
    for line in PAGE.split("\n"):
        typed = re.match(r"gcloud (projects|storage|artifacts|iam)\b.* add-iam-policy-binding (\S+)", line)
        if not typed or "principalSet" in line or "workloadIdentityUser" in line:
            continue
        member, role = re.search(r"--member=(\S+)", line), re.search(r"--role=(\S+)", line)
        assert member, line
        assert role, line
        on = {"$SA": "pipelines", "$BUILD": "build"}[typed[2]] if typed[1] == "iam" else typed[1]
        found.add((on, WHO[member[1]], role[1]))
    return found


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, str]]]:
    """The tables of bindings as terraform itself computes them, with one person and a repository; no provider."""
    folder = tmp_path_factory.mktemp("tables")
    kept = re.sub(r"google_service_account\.(\w+)(\[0\])?\.(email|name)", r"\1", "\n".join(_blocks(text(), "locals")))
    kept = re.sub(r"\$\{(pipelines|build|ci)\}", r"\1", kept)
    kept = re.sub(r"= (pipelines|build)$", r'= "\1"', kept, flags=re.M)
    (folder / "main.tf").write_text("\n".join([kept, *_blocks(text(), "variable")]))
    values = {"project": "p", "region": "r", "bucket": "b", "people": ["user:me"], "github_repository": "o/n"}
    (folder / "terraform.tfvars.json").write_text(json.dumps(values))
    names = [*TABLES.values(), "act_as_bindings"]
    asked = "jsonencode({" + ", ".join(f"{name} = local.{name}" for name in names) + "})"
    done = terraform(folder, "console", given=asked)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(json.loads(done.stdout.strip().split("\n")[-1])))


def _blocks(source: str, kind: str) -> Iterator[str]:
    for match in re.finditer(rf"^{kind}\b.*?^}}$", source, re.M | re.S):
        yield match[0]


@needs_terraform
def test_rights_are_those_of_the_page(evaluated: dict[str, dict[str, dict[str, str]]]) -> None:
    made = {
        (on, entry["who"], entry["role"]) for on, table in TABLES.items() for entry in evaluated[table].values()
    } | {
        (entry["account"], entry["who"], "roles/iam.serviceAccountUser")
        for entry in evaluated["act_as_bindings"].values()
    }
    assert made == by_hand()


def test_services_bucket_and_federation_are_those_of_the_page() -> None:
    enabled = " ".join(re.findall(r"gcloud services enable --project=\$PROJECT (.*)", PAGE))
    listed = re.search(r"services = \[(.*?)\]", text(), re.S)
    assert listed
    assert set(re.findall(r'"(\S+)"', listed[1])) == set(re.findall(r"\w+\.googleapis\.com", enabled))
    assert "--uniform-bucket-level-access --enable-hierarchical-namespace" in re.sub(r" +", " ", PAGE)
    bucket = next(block for block in _blocks(text(), "resource") if '"google_storage_bucket"' in block)
    assert "uniform_bucket_level_access = true" in bucket
    assert re.search(r"hierarchical_namespace \{\s+enabled = true", bucket)
    condition = "assertion.repository=='{}' && assertion.ref=='refs/heads/main'"
    assert condition.format("$REPO") in PAGE
    assert condition.format("${var.github_repository}") in text()
    for mapping in ("google.subject", "attribute.repository", "attribute.ref"):
        assert mapping in PAGE
        assert f'"{mapping}"' in text()


def test_nothing_is_granted_beside_the_tables_and_no_key_is_made() -> None:
    kinds = re.findall(r'^resource "(\w+)"', text(), re.M)
    assert not {kind for kind in kinds if kind.endswith(("_binding", "_policy", "_key"))}
    assert set(re.findall(r'^ +role += +"?([^"\n]+)', text(), re.M)) == {
        "each.value.role", "roles/iam.serviceAccountUser", "roles/iam.workloadIdentityUser",
    }  # fmt: skip
    assert not re.search(r"roles/(owner|editor|viewer|[\w.]*[aA]dmin)\b", text())


@needs_terraform
def test_the_module_is_formatted_and_valid(tmp_path: Path) -> None:
    done = terraform(INFRA, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout
    shutil.copytree(INFRA, tmp_path / "infra", ignore=shutil.ignore_patterns(".terraform*"))
    begun = terraform(tmp_path / "infra", "init", "-backend=false", "-no-color", "-input=false")
    said = " ".join(begun.stderr.split())
    if begun.returncode and re.search(r"could not connect|no such host|Failed to query available provider", said):
        pytest.skip(f"terraform validate needs the google provider, and it cannot be had here: {said[:200]}")
    assert begun.returncode == 0, begun.stderr
    valid = terraform(tmp_path / "infra", "validate", "-json")
    assert json.loads(valid.stdout)["valid"], valid.stdout
