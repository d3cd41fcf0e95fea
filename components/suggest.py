"""suggest: the settings that the trials of a hyper-parameter search try."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from components.step import component


@component("suggest")
def suggest(search_config: dict, train_config: dict) -> list[str]:
    """Chooses the settings.

    Args:
        search_config: the job's `search` section.
        train_config: the job's `train` section.

    Returns:
        A JSON text for each trial, which is all that the trial depends on (`factory.search.make_trial`).
    """
    import json

    from components.step import step
    from core.printable import say
    from factory.lineage import restore_ints
    from factory.search import suggest as points

    with step():
        trials = points(restore_ints(search_config), restore_ints(train_config))
        for trial in trials:
            say(f"trial {trial['trial']}: {json.dumps(trial['parameters'])}")
    return [json.dumps(trial) for trial in trials]
