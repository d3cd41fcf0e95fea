"""Suggestions of a name that was probably meant."""

from __future__ import annotations

from core.similar import did_you_mean


def test_a_name_that_is_allowed_is_not_suggested_for_itself() -> None:
    assert did_you_mean("splits", ["splits", "split"]) == ""
    assert did_you_mean("splitz", ["splits"]) == "did you mean 'splits'? "
