"""Models on the Hugging Face Hub: `hf://USER/REPO` or `hf://USER/REPO@REVISION`, as `textdiffusion push` writes them.

A repository holds a version as the registry does: manifest.json, which states the hash of every file, and the files of
its parts. Only these are fetched, all of one commit, by the Hub's own client and through its cache; a copy of them is
verified before it is used. Names that lead elsewhere, and files that are neither safetensors nor JSON, are refused.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.names import inside
from factory.versions import MANIFEST, Version, version_in

PREFIX = "hf://"
PARTS = ("model", "autoregressive")
SUFFIXES = (".safetensors", ".json")
MAX_MANIFEST_BYTES = 1 << 20
MAX_BYTES = 16 << 30  # of a file, as of a model's folder
MAX_FILES = 64
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPOSITORY = re.compile(f"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
TOKEN = "set HF_TOKEN, or run `hf auth login`"


def is_hub(name: str) -> bool:
    """Whether a model's name is that of a repository."""
    return name.startswith(PREFIX)


def repository_of(name: str) -> tuple[str, str | None]:
    """USER/REPO and the revision that a name says, with or without `hf://`.

    Raises:
        UserError: it says something else.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    if not _REPOSITORY.fullmatch(repository) or (revision and not _REVISION.fullmatch(revision)):
        raise UserError(f"{name}: expected {PREFIX}USER/REPO or {PREFIX}USER/REPO@REVISION")
    return repository, revision or None


def fetch(name: str, target: Path) -> Version:
    """Copies the model that `name` means into the folder `target`, and verifies it.

    Raises:
        UserError: there is none, it cannot be reached, or it is not what its manifest states.
    """
    repository, revision = repository_of(name)
    commit = _copied(name, repository, revision, MANIFEST, target, MAX_MANIFEST_BYTES)
    version = version_in(str(target))
    for file in _checked(version, name):
        _copied(name, repository, commit, file, target, MAX_BYTES)
    version.verify()
    return version


def _checked(version: Version, name: str) -> list[str]:
    """The names of a version's files, all refused if one is."""
    if len(version.files) > MAX_FILES:
        raise UserError(f"{name}: {MANIFEST} lists {len(version.files)} files; allowed: {MAX_FILES}")
    for file in version.files:
        if file.split("/")[0] not in PARTS or not file.endswith(SUFFIXES):
            raise UserError(
                f"{name}: refuses {file!r}; allowed: {' and '.join(SUFFIXES)} files below {' or '.join(PARTS)}"
            )
    return list(version.files)


def _copied(where: str, repository: str, revision: str | None, file: str, target: Path, limit: int) -> str:
    """Copies a file of the repository, which errors call `where`, into `target`; the commit that it is of."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    asked: dict[str, Any] = {"repo_id": repository, "filename": file, "endpoint": endpoint(), "library_name": LIBRARY}
    with one_line(where, file):
        known = hf_hub_download(**asked, revision=revision, dry_run=True)
        if known.file_size is not None and known.file_size > limit:
            raise UserError(f"{where}: {file} has {known.file_size} bytes; allowed: {limit}")
        cached = Path(hf_hub_download(**asked, revision=revision))  # <cache>/.../<commit>/<file>
    place = inside(target, file)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(cached, place)  # the cache has links, which a model's folder must not
    return cached.parents[file.count("/")].name


LIBRARY = "textdiffusion"


def endpoint() -> str | None:
    """Where the Hub is, if it is not huggingface.co."""
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def one_line(where: str, file: str = "") -> Iterator[None]:
    """What the Hub's client raises, as one line.

    Raises:
        UserError: the repository `where` was refused, is not there, or cannot be reached.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise UserError(f"{where}: gated; ask for access on its page, then {TOKEN}") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{where}: no such repository on the Hub, or a private one: {TOKEN}") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{where}: no such revision") from None
    except errors.LocalEntryNotFoundError as error:
        raise UserError(f"{where}: {_offline(error.__cause__)}, and {file} is not in its cache") from None
    except errors.EntryNotFoundError:
        hint = "; `textdiffusion push` writes one" if file == MANIFEST else ""
        raise UserError(f"{where}: there is no {file}{hint}") from None
    except errors.HfHubHTTPError as error:
        raise UserError(f"{where}: {_refusal(error)}") from None
    except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:  # type: ignore[attr-defined]
        raise UserError(f"{where}: {_offline(error)}") from None
    except (ValueError, RuntimeError) as error:  # of a malformed answer, of an upload that broke off
        raise UserError(f"{where}: {_short(error.__cause__ or error)}") from None


def _offline(error: BaseException | None) -> str:
    why = "" if error is None else f" ({_short(error)})"
    return f"the Hub cannot be reached{why}"


def _refusal(error: Any) -> str:
    status = error.response.status_code
    said = error.server_message or _short(error)
    if status == 401:
        return f"the Hub refuses the token (401): {TOKEN}"
    if status == 403:
        return f"the token may not do this (403): {said}"
    return f"the Hub answers {status}: {said}"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
