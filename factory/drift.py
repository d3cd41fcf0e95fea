"""Whether there is anything new to train on: the source's files and the configuration against those of the last time.

What was trained on is recorded with the model, `<registry>/<model>/data.json`, when a retraining has come to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.config import config_hash
from core.names import inside
from core.records import Label, Note, Record, or_none, read
from core.sources.listing import listing as own_files
from core.storage import remote
from factory.registry import Registry

TRAIN, SKIP = "train", "skip"
_NAMED = 10_000  # files that a record lists by name; beyond that their common hash speaks for all


class Trained(Record):
    """data.json: what a model was last trained on. `files`: a hash for each by name, or only how many there were."""

    created: Label
    fingerprint: Label
    config_hash: Label
    files: dict[Note, Note] | int


def listing(data_dir: str | None) -> dict[str, str]:
    """A fingerprint of each file below `data_dir`, by name; empty for data that is built in.

    Remote files are told apart by the checksum that the store keeps, so nothing is read.
    """
    if data_dir is None:
        return {}
    if storage.is_remote(data_dir):
        return {
            name: str(facts.get("md5Hash") or facts.get("crc32c") or remote.md5(facts).hex() or facts.get("etag"))
            for name, facts in remote.details(data_dir).items()
        }
    root = Path(data_dir)
    if root.is_file():
        return {root.name: storage.sha256(root)}
    return {name: storage.sha256(inside(root, name, links=True)) for name in own_files(root).files}


def decide(
    current: Mapping[str, str], config: Mapping[str, Any], last: Trained | None, *, champion: bool
) -> tuple[str, str]:
    """("train" or "skip", the reason).

    Args:
        current: `listing` of now.
        config: the sections that decide what comes out of a training.
        last: the record of the last retraining, None if there was none.
        champion: whether a model is in service.
    """
    if last is None:
        return TRAIN, "nothing was trained on this data before"
    if not champion:
        return TRAIN, "no model is in service"
    if config_hash(dict(config)) != last.config_hash:
        return TRAIN, f"the configuration is not the one of {last.created}"
    if config_hash(dict(current)) == last.fingerprint:
        return SKIP, f"{_count(len(current))} and the configuration are those of {last.created}"
    before = last.files
    if not isinstance(before, Mapping):
        return TRAIN, f"the files are not those of {last.created}"
    added, removed = len(set(current) - set(before)), len(set(before) - set(current))
    changed = sum(current[name] != before[name] for name in set(current) & set(before))
    return TRAIN, f"{added} files added, {removed} removed, {changed} changed since {last.created}"


def check(data: Mapping[str, Any], config: Mapping[str, Any], registry: str, model_name: str) -> dict[str, Any]:
    """Looks at a job's data source: {"decision", "reason", "fingerprint", "config_hash", "files"}.

    Raises:
        UserError: the source cannot be listed.
    """
    store = Registry(registry)
    current = listing(data.get("data_dir"))
    uri = _record(registry, model_name)
    last = or_none(lambda: read(Trained, uri)) if storage.exists(uri) else None
    decision, reason = decide(current, config, last, champion=store.champion(model_name) is not None)
    if decision == SKIP:
        store.record(model_name, "skip", reason)
    return {
        "decision": decision,
        "reason": reason,
        "fingerprint": config_hash(current),
        "config_hash": config_hash(dict(config)),
        "files": current if len(current) <= _NAMED else len(current),
    }


def remember(state: Mapping[str, Any], created: str, registry: str, model_name: str) -> None:
    """Records that a model was trained on what `check` found, at `created`."""
    facts = {key: state[key] for key in ("fingerprint", "config_hash", "files")}
    storage.write_json(_record(registry, model_name), {"created": created, **facts})


def _record(registry: str, model_name: str) -> str:
    return inside(registry, f"{model_name}/data.json")


def _count(files: int) -> str:
    return f"the {files} files" if files else "the built-in data"
