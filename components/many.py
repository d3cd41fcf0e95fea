"""plan-shards, draw-shards, collect-shards: very many samples, shared by steps that run at once (factory/many.py)."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from kfp import dsl

from components.step import component


@component("plan-shards")
def plan_shards(many_config: dict) -> list[str]:
    """Divides the samples.

    Args:
        many_config: the job's `many` section.

    Returns:
        The number of each worker, of how many: "0/8", "1/8", ...
    """
    from components.step import step
    from factory.many import workers

    with step():
        return workers(many_config)


@component("draw-shards")
def draw_shards(
    modality: str,
    worker: str,
    sample_config: dict,
    many_config: dict,
    work: str,
    model: dsl.Input[dsl.Model],
    drawn: dsl.Output[dsl.Artifact],
) -> None:
    """Draws one worker's shards; those that are there already stay.

    Args:
        modality: images or text.
        worker: one of the texts that `plan-shards` returns.
        sample_config: the job's `sample` section.
        many_config: the job's `many` section.
        work: folder or prefix that shards go below, if many.out names no place.
    """
    import json
    from pathlib import Path

    from components.step import describe, step
    from core.printable import printable_json, say
    from core.storage import integrity
    from factory.many import draw

    with step():
        facts = draw(worker, modality, sample_config, many_config, Path(model.path), work)
        integrity.write_json(Path(drawn.path) / "drawn.json", facts)
        describe(drawn, facts, {"sample": sample_config, "many": many_config}, {"model": model})
        say(printable_json(json.dumps(facts)), lines=True)


@component("collect-shards")
def collect_shards(
    sample_config: dict,
    many_config: dict,
    drawn: dsl.Input[list[dsl.Artifact]],
    shards: dsl.Output[dsl.Artifact],
) -> None:
    """Writes the manifest of all shards, beside them and as this step's output; the samples stay where they are.

    Args:
        sample_config: the job's `sample` section.
        many_config: the job's `many` section.
    """
    from pathlib import Path

    from components.step import describe, step, verified
    from core import storage
    from factory.shards import close

    with step():
        (out,) = {str(storage.read_json(storage.join(verified(one), "drawn.json"))["out"]) for one in drawn}
        manifest = close(out)
        storage.write_json(Path(shards.path) / "manifest.json", {"out": out, **manifest})
        facts = {"out": out, "count": manifest["count"], "shards": len(manifest["shards"])}
        describe(shards, facts, {"sample": sample_config, "many": many_config})
