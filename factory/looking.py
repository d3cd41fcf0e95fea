"""A look at a job's data before anything runs: what they say against the job.

Headers, names and the first images are read, or a text of moderate size. Large archives, archives in a bucket and what
is on huggingface.co are judged by the steps alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core import storage
from core.errors import UserError
from core.images.config import ImageData
from core.sources.archives import is_archive
from core.text.config import GAP, TextData
from factory import consistency
from factory.job import AnyJob, ImageSamplingJob, ImageTrainingJob, TextTrainingJob

READABLE = ("folder", "npz", "idx", "file")  # mnist may be about to be downloaded there
MOST = 64 << 20  # bytes of a text or an archive that is read twice


def require_suitable_data(job: AnyJob) -> None:
    """Raises UserError if the data of `job` cannot be what it asks for."""
    if isinstance(job, ImageTrainingJob | ImageSamplingJob):
        problems = _images(job) if _can_be_looked_at(job.data) else iter(())
    else:
        looked_at = isinstance(job, TextTrainingJob) and _is_short(job.data)
        problems = _text(job) if looked_at else iter(())  # type: ignore[arg-type]
    for problem in problems:
        raise UserError(f"{job.job}: {problem}")


def _can_be_looked_at(data: ImageData | TextData) -> bool:
    """Whether a look costs little: a folder, a bucket's names and first images, or a small archive that is here."""
    place = data.data_dir
    if place is None or data.source not in READABLE or not storage.exists(place):
        return False
    return not is_archive(place) or (not storage.is_remote(place) and Path(place).stat().st_size <= MOST)


def _is_short(data: TextData) -> bool:
    place = data.data_dir
    if place is None or data.source != "file":
        return data.source == "pydoc"
    if not _can_be_looked_at(data):
        return False
    if is_archive(place):
        return True
    sizes = storage.sizes(place) or {"": storage.size(place)}  # a file has no files below it
    return sum(sizes.values()) <= MOST


def _images(job: ImageTrainingJob | ImageSamplingJob) -> Iterator[str]:
    from core.images.sources import open_source
    from core.images.split import assign_splits

    with open_source(job.data) as source:
        assign_splits(source, job.data)
        yield from consistency.unknown_classes(job.sample, source.class_names if source.labelled else ())
        if isinstance(job, ImageSamplingJob):
            return
        if not source.labelled:
            for name in (job.gate.metric, *job.gate.require):
                if name in consistency.BY_CLASS:
                    yield f"gate: {name} is not measured: {source.train.name} has no classes"
        first = next(iter(source.train.batches()))
        height, width = (job.data.resolution,) * 2 if job.data.resolution else first.shape[1:3]
        if problem := job.model.network.obstacle(height, width):
            yield problem


def _text(job: TextTrainingJob) -> Iterator[str]:
    from core.text.source import read_source, source_name
    from core.text.splits import split

    text, where = "".join(read_source(job.data))[: job.data.limit], source_name(job.data)
    by_characters = job.data.tokenizer.kind == "characters"
    if by_characters:
        known = set(text)
        for prompt in job.sample.prompts:
            if odd := set(prompt.replace(GAP, "")) - known:
                yield (
                    f"sample.prompts: {prompt[:40]!r} has {min(odd)!r}, which {where} does not have; a vocabulary of"
                    " characters knows no others (data.tokenizer.kind: bpe knows all)"
                )
    parts = split(text, job.data.validation_fraction, job.data.test_fraction)
    most = {name: len(part) if by_characters else len(part.encode()) for name, part in parts.items()}  # tokens
    context = job.model.context
    for name in ("train", "validation"):
        if most[name] < context:
            yield f"{where}: the {name} split has {most[name]} tokens at most, and model.context is {context}"
    for span in job.evaluate.spans:
        if most["test"] < 2 * (context // 2) + (span if by_characters else 1):
            yield (
                f"evaluate.spans: the test split of {most['test']} tokens at most is too short for spans of {span} in a"
                f" context of {context} (data.test_fraction, model.context)"
            )
