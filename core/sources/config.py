"""Settings that the section `data` of every modality has for `source: huggingface`."""

from __future__ import annotations

from pydantic import Field

from core.config import Frozen


class HubPlace(Frozen):
    """A data set of huggingface.co by name; `data_dir` names a saved or parquet folder instead."""

    dataset: str | None = Field(
        None,
        pattern=r"^[\w.-]+(/[\w.-]+)?$",
        max_length=200,
        description="name of a data set of huggingface.co, as ylecun/mnist; data_dir names files instead",
    )
    subset: str | None = Field(None, max_length=200, description="configuration of that data set, if it has several")
    revision: str | None = Field(
        None, max_length=200, description="commit or tag of it; null: the newest, which may change between runs"
    )
