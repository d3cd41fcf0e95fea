"""Machines and accelerators: rows that Vertex would refuse are refused here."""

from __future__ import annotations

import pytest
import yaml

from core.errors import UserError
from pipelines.machines import RESOURCES, allowed_accelerators, check_pair, load_machines


def test_the_documented_rows_are_there_with_price_source_and_date() -> None:
    machines = load_machines()
    assert set(machines) == {"cpu", "t4", "l4", "a100", "a100-x8", "a100-80gb", "h100"}
    for machine in machines.values():
        assert machine.usd_per_hour is not None
        assert machine.usd_per_hour.source
        assert machine.usd_per_hour.date.year >= 2026
    # The two figures that were read on Google's rate card.
    assert machines["t4"].usd_per_hour.machine == pytest.approx(0.21849885)  # type: ignore[union-attr]
    assert machines["h100"].price() == pytest.approx(1.18251 + 9.79655057)


def test_accelerators_are_the_names_that_the_client_library_knows() -> None:
    from google.cloud.aiplatform_v1.types import AcceleratorType

    known = {member.name for member in AcceleratorType}
    for row in yaml.safe_load(RESOURCES.read_text()).values():
        if row.get("accelerator_type"):
            assert row["accelerator_type"] in known


@pytest.mark.parametrize(
    ("machine", "accelerator", "count", "message"),
    [
        (
            "e2-standard-4",
            "NVIDIA_TESLA_T4",
            1,
            "e2-standard-4 does not take NVIDIA_TESLA_T4; accelerators it takes: none",
        ),
        ("n1-standard-4", "NVIDIA_L4", 1, "n1-standard-4 does not take NVIDIA_L4"),
        ("g2-standard-8", "NVIDIA_TESLA_L4", 1, "no accelerator is called NVIDIA_TESLA_L4; did you mean NVIDIA_L4"),
        ("g2-standard-24", "NVIDIA_L4", 1, "allowed counts: 2"),
        ("n1-standard-4", "NVIDIA_TESLA_T4", 3, "allowed counts: 1, 2, 4"),
        ("a2-highgpu-2g", "NVIDIA_TESLA_A100", 1, "allowed counts: 2"),
        ("a2-highgpu-1g", None, 0, "comes only with its accelerators"),
        ("n1-standard-4", None, 1, "without accelerator_type"),
        ("n1-standard-8", "NVIDIA_TESLA_V100", 1, "is sm_70, and the locked torch has kernels for sm_75, "),
        ("n1-standard-8", "NVIDIA_TESLA_P100", 1, "is sm_60, .* allowed: NVIDIA_TESLA_T4, "),
    ],
)
def test_pairs_that_do_not_exist_are_refused(machine: str, accelerator: str | None, count: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_pair(machine, accelerator, count, "test")


def test_own_rows_are_laid_over_the_table_and_checked() -> None:
    own = {"big": {"machine_type": "g2-standard-96", "cpu": 96, "memory_gb": 384}}
    own["big"] |= {"accelerator_type": "NVIDIA_L4", "accelerator_count": 8}
    assert load_machines(own)["big"].accelerator_count == 8
    with pytest.raises(UserError, match="machines: big"):
        load_machines({"big": {**own["big"], "accelerator_count": 4}})


def test_machines_without_gpus_take_none() -> None:
    assert allowed_accelerators("e2-standard-4") == allowed_accelerators("n2-standard-8") == {}
