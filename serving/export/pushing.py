"""`textdiffusion push`: a model as a repository of the Hugging Face Hub, in one commit by the Hub's own client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.names import inside
from core.storage import scratches
from factory import hub
from factory.versions import MANIFEST
from serving.export.published import CARD, SAMPLES, Wishes
from serving.export.writing import MANIFEST as EXPORT
from serving.export.writing import export

OURS = {MANIFEST, CARD, SAMPLES, "config.json", "model.safetensors", "guide.safetensors", "sample.py", "write.py"}
GIT = ".gitattributes"  # the Hub makes it


def push(
    model: str,
    repository: str,
    registry: str,
    runs: Path | None,
    sampling: Mapping[str, Any],
    *,
    licence: str = "",
    public: bool = False,
) -> dict[str, Any]:
    """Writes the export `hub` of a model, checks it, and makes it the content of a repository; {"url", "commit", ...}.

    Args:
        model: as for `export`.
        repository: USER/REPO, made if it is not there.
        registry: where registered models are.
        runs: folder of runs.
        sampling: steps and guidance, None for those that it was measured with.
        licence: of the weights, by the Hub's name.
        public: whether a repository that is made is seen by everybody.

    Raises:
        UserError: there is no such model, the repository holds something else, or the Hub refuses; nothing is changed
            there then.
    """
    wishes = Wishes(hub.repository_of(repository)[0], licence)
    client(f"{hub.PREFIX}{wishes.repository}")  # a token that is refused is said before anything is drawn
    with scratches.temporary_folder("push") as scratch:
        facts = export(model, "hub", scratch / "made", registry, runs, sampling, wishes)
        made = upload(scratch / "made", wishes.repository, _message(model, facts), public=public)
    return {"repository": wishes.repository, **made, **facts}


def upload(folder: Path, repository: str, message: str, *, public: bool = False) -> dict[str, str]:
    """Makes the files of an export `hub` the content of a repository, in one commit; {"url", "commit"}.

    Raises:
        UserError: it holds something else, or the Hub refuses.
    """
    where = f"{hub.PREFIX}{repository}"
    api = client(where)
    with hub.one_line(where):
        api.create_repo(repository, private=not public, exist_ok=True)
        there = set(api.list_repo_files(repository))
        _require_ours(where, there)
        made = api.create_commit(repository, _changes(folder, there), commit_message=message)
    return {"url": str(made.commit_url), "commit": str(made.oid)}


def client(where: str) -> Any:
    """The Hub's client, with a token that the Hub knows.

    Raises:
        UserError: there is none, or it is refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api = HfApi(endpoint=hub.endpoint(), library_name=hub.LIBRARY)
    with hub.one_line(where):
        try:
            api.whoami()
        except OSError as error:
            if type(error).__name__ != "LocalTokenNotFoundError":
                raise
            raise UserError(f"{where}: to push takes a token that may write: {hub.TOKEN}") from None
    return api


def _require_ours(where: str, there: set[str]) -> None:
    if there - {GIT, CARD} and MANIFEST not in there:
        raise UserError(f"{where}: holds something that `push` did not write; choose another repository")


def _changes(folder: Path, there: set[str]) -> list[Any]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    names = [name for name in storage.list_files(folder) if name != EXPORT]
    stale = sorted(name for name in there - set(names) if name in OURS or name.split("/")[0] in hub.PARTS)
    added = [CommitOperationAdd(name, str(inside(folder, name))) for name in names]
    return [*added, *(CommitOperationDelete(name) for name in stale)]


def _message(model: str, facts: Mapping[str, Any]) -> str:
    name = "a model" if "/" in model else model
    return f"{name}, weights {str(facts['weights_sha256'])[:12]}"
