"""keep: the challenger is refused and the champion stays; the history of the model says why."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from kfp import dsl

from components.step import component


@component("keep")
def keep(
    registry: str, model_name: str, run: str, verdict: dsl.Input[dsl.Artifact], kept: dsl.Output[dsl.Artifact]
) -> None:
    """Records that a challenger was refused.

    Args:
        registry: folder or gs:// prefix.
        model_name: the model whose champion stays.
        run: id of this run.
    """
    from pathlib import Path

    from components.step import describe, step, verified
    from core import storage
    from core.evaluation import Decision, Verdict
    from factory.lineage import run_of
    from factory.registry import Registry

    with step():
        run = run or run_of(kept.uri)
        decided = Verdict.read(verified(verdict))
        facts = decided.facts()
        Registry(registry).record(model_name, Decision.KEEP, decided.reason, run=run, challenger=facts["challenger"])
        storage.write_json(Path(kept.path) / "kept.json", {"model": model_name, "run": run, **facts})
        describe(kept, {"reason": decided.reason}, {}, {"verdict": verdict})
