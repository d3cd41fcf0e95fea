"""prepare-data: reads a source, checks it, splits it and writes the data set artifact."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from kfp import dsl

from components.step import component


@component("prepare-data")
def prepare_data(modality: str, data_config: dict, data_fingerprint: str, dataset: dsl.Output[dsl.Dataset]) -> None:
    """Reads the source, checks it and writes the split, hashed data set.

    Args:
        modality: images or text.
        data_config: the job's `data` section.
        data_fingerprint: names, sizes and times of the source's files; here so that changed data misses the cache.
    """
    from pathlib import Path

    from components.step import describe, step
    from core.modality import run
    from core.requests import PrepareDataRequest, modality_name
    from core.schemes import is_remote

    with step():
        beside = f"{dataset.uri}-shards" if is_remote(dataset.uri) else None  # backends copy all of an artifact
        request = PrepareDataRequest(
            modality=modality_name(modality), data=data_config, out=Path(dataset.path), shards=beside
        )
        metadata = run(request)
        metadata = {"data_hash": metadata.get("content_sha256"), **metadata, "data_fingerprint": data_fingerprint}
        describe(dataset, metadata, {"data": data_config})
