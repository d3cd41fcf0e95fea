"""Artifacts in which every text is an attack on the page that shows it."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path
from typing import Any

MARK = "hostile"
ATTACKS = (
    "</script><script>document.title='pwned'</script>",
    "<!--<script>",
    "<img src=https://elsewhere.invalid/x onerror=document.title='pwned'>",
    "\"' onmouseover=document.title='pwned' autofocus onfocus=document.title='pwned' x=\"",
    "</title></style></template></textarea></svg><svg onload=document.title='pwned'>",
    "<style>@import 'https://elsewhere.invalid/x';*{background:url(https://elsewhere.invalid/y)}</style>",
    ";}*{background:url(//elsewhere.invalid/z)}",
    "<a href=javascript:document.title='pwned'>" + MARK + "</a>",
    "<base href=https://elsewhere.invalid/><meta http-equiv=refresh content='0;url=https://elsewhere.invalid/'>",
    "<iframe srcdoc=\"<script>top.document.title='pwned'</script>\"></iframe><object data=//elsewhere.invalid>",
    "{{7*7}}{% raw %}${7*7}",
    "\u2028\u2029\u0085\u202e\u200b\ufeff\x00\x07\x1b[31m\r\n]]>&lt;&amp;&quot;",
    "%E0%A4%A",
)
KEPT = ("images", "text", "lower", "higher", "diffusion", "autoregressive", "guided", "infill", "succeeded", "cached")


class _Spoiler:
    """Puts an attack behind every text: the next one each time, so that all of them are everywhere."""

    def __init__(self) -> None:
        self._next = cycle(ATTACKS)

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {**{key: self(one) for key, one in value.items()}, next(self._next): next(self._next)}
        if isinstance(value, list):
            return [self(one) for one in value]
        return value + next(self._next) if isinstance(value, str) and value not in KEPT else value


def spoil(folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    """Spoils a run's artifacts below `folder`, and its record, which it returns."""
    spoiled = _Spoiler()
    for path in sorted([*folder.rglob("*.json"), *folder.rglob("*.jsonl")]):
        lines = [json.dumps(spoiled(json.loads(line))) for line in path.read_text().split("\n") if line]
        path.write_text("\n".join(lines))
    every = "".join(ATTACKS)
    facts = {**spoiled(run["run"]), "id": every, "job": every}
    return {**run, "run": {**facts, "config": {**facts["config"], "description": every, every: every}}}
