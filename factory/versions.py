"""What the model registry keeps, as it is read back: versions, the champion's pointer, lines of the history."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from core import storage
from core.errors import UserError
from core.names import inside, relative
from core.records import Label, Note, Record, read

MANIFEST = "manifest.json"
Number = Annotated[int, Field(ge=0, le=10**9)]


class Lineage(Record):
    """Where a version came from; other facts are kept with these."""

    run: Label | None = None
    parents: dict[Label, Note] = Field(default_factory=dict)
    sample: dict[str, Any] | None = None


def _lineage(value: dict[str, Any]) -> dict[str, Any]:
    Lineage.model_validate(value)
    return value


class Event(Record):
    """One entry of the history."""

    created: Label
    event: Label
    reason: Note = ""
    version: Number | None = None


class Pointer(Record):
    """champion.json: the version in service, and those before it."""

    SEALED: ClassVar[bool] = True
    version: Number
    previous: Annotated[list[Number], Field(max_length=100_000)] = Field(default_factory=list)
    history: dict[Label, Event] = Field(default_factory=dict)  # the line of this change, should it be missing there


class Version(Record):
    """One registered model. `metrics` is metrics.json as it was when the version was judged."""

    SEALED: ClassVar[bool] = True
    model: Label
    version: Number
    uri: Note
    created: Label
    metrics: dict[Label, dict[str, Any]]
    evaluation_key: Note
    weights_sha256: Label
    lineage: Annotated[dict[str, Any], AfterValidator(_lineage)]
    files: dict[Note, Label] = Field(repr=False)
    provisional: bool = False  # registered below the gate's minimum: it serves only once it is promoted by hand

    @property
    def name(self) -> str:
        return f"{self.model}@{self.version}"

    def state(self, *, champion: bool) -> str:
        """champion, provisional or registered, for people."""
        return "champion" if champion else "provisional" if self.provisional else "registered"

    def folder(self, part: str = "model") -> str:
        """Where the files of `part` are; a UserError if the version has none."""
        if not any(name.startswith(f"{part}/") for name in self.files):
            raise UserError(f"{self.model}@{self.version}: holds no {part} model")
        return inside(self.uri, part)

    def verify(self) -> None:
        """Raises UserError if a file is missing or is not what was registered."""
        for name, expected in self.files.items():
            uri = inside(self.uri, name)
            if not storage.exists(uri):
                raise UserError(f"{self.model}@{self.version}: {name} is missing from {self.uri}")
            if storage.sha256(uri) != expected:
                raise UserError(f"{self.model}@{self.version}: {name} is damaged: its SHA-256 is another one")


def is_version(uri: str) -> bool:
    """Whether a folder or prefix is one version of a registry, or a copy of one."""
    return storage.exists(storage.join(uri, MANIFEST))


def version_in(uri: str) -> Version:
    """The version in a folder or prefix, wherever it was copied to.

    Raises:
        UserError: its manifest is missing or does not parse.
    """
    path = storage.join(uri, MANIFEST)
    version = read(Version, path)
    for name in version.files:
        if "/" not in relative(name, path):
            raise UserError(f"{path}: files: found {name!r}; expected PART/FILE")
    return version.model_copy(update={"uri": uri})
