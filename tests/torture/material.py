"""What inputs are made of: values of every kind, well-formed files with a few changes, and known nasty texts."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 10**12, 10**400, float("nan"), 1e308])
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=12), st.dates())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
NASTY_YAML = st.sampled_from(
    [
        "&a [*a, *a]",
        "!!python/object/apply:os.system [id]",
        "!!binary x",
        "[" * 5000,
        "{a: " * 3000,
        "- " * 3000,
        "9" * 5000,
        "0x" + "f" * 5000,
        "1:" * 4000 + "1",
        "? [a]",
        "<<: {a: 1}",
        "a: b: c",
        "\t",
        "%YAML 9.9",
        "2020-99-99",
        "1e999999",
        "\x00",
        "\ud800",
        "!!set {a}",
        "'",
        '"\\xZZ"',
        "|\n x",
        "--- a\n--- b",
        "@",
        "=",
        "~",
        ".inf",
    ]
)


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A well-formed file with up to four bytes, fields or ranges changed; sometimes nothing like it."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["byte", "field", "cut", "insert", "head"]))
        if kind == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "field":
            data[at : at + 4] = draw(
                st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1"])
            )
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        elif kind == "head":
            data[: min(16, len(data))] = draw(st.binary(max_size=16))
    return bytes(data) if draw(st.integers(0, 19)) else draw(st.binary(max_size=64))


def as_json(value: Any) -> bytes:
    """`value` as JSON, as far as it can be."""
    return json.dumps(value, default=str).encode()
