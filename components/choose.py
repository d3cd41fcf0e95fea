"""choose: the best trial of a hyper-parameter search, and the settings that the model is then trained with."""

# mypy: disable-error-code="type-arg, untyped-decorator, assignment"
from kfp import dsl

from components.step import component


@component("choose")
def choose(
    search_config: dict,
    train_config: dict,
    search: dsl.Output[dsl.Artifact],
    table: dsl.Output[dsl.Markdown],
    gcp_resources: str = "",
    trials: dsl.Input[list[dsl.Artifact]] = None,
) -> dict:
    """Compares the trials that ran as steps, or those of a Vertex AI hyper-parameter tuning job.

    Args:
        search_config: the job's `search` section.
        train_config: the job's `train` section.
        gcp_resources: what the step that ran the tuning job says about it.
        trials: one artifact of `trial` each.

    Returns:
        The `train` section with the winner's settings, at the training's own budget.
    """
    from components.step import step, verified
    from components.tuning import publish_search, trials_of
    from core import storage

    with step():
        if gcp_resources:
            tuned = trials_of(gcp_resources, search_config)
        else:
            tuned = [storage.read_json(storage.join(verified(one), "trial.json")) for one in trials]
        section = publish_search(search_config, train_config, tuned, search, table)
    return section
