"""`python -m components`: the entry point of the image. Runs a step by its name, or looks whether all is whole.

python -m components steps
python -m components doctor --inside
python -m components train --executor_input JSON
python -m components train-job --job JSON --out URI
python -m components train-node --order URI
python -m components trial --request URI [--SETTING=VALUE ...]
python -m components shards --request JSON
"""

from __future__ import annotations

import json
import os
import sys

from core.printable import printable_json, say
from factory.steps import STEPS


def run(name: str, executor_input: str) -> None:
    """Executes one step as KFP's own launcher would.

    Raises:
        UserError: there is no such step, or the input is not JSON.
    """
    from kfp.dsl.executor import Executor

    from components.step import load
    from core.errors import UserError

    step = name.replace("_", "-")
    if step not in STEPS:
        raise UserError(f"step {name!r}: there is none; allowed: {', '.join(STEPS)}, doctor, steps")
    try:
        values = json.loads(executor_input)
    except ValueError as error:
        raise UserError(f"--executor_input: not JSON: {error}") from None
    Executor(executor_input=values, function_to_execute=load(step).python_func).execute()


def train_alone(job: str, out: str) -> None:
    """Trains a job without its pipeline and prints what is known of the model.

    Raises:
        UserError: the job is not valid.
    """
    from components.train_job import train_job
    from core.config import parse_yaml
    from core.processes.accelerators import require_gpus
    from factory.job import parse_job

    require_gpus()
    say(printable_json(json.dumps(train_job(parse_job(parse_yaml(job, "--job"), "--job"), out))), lines=True)


def draw_many(request: str) -> None:
    """Draws one worker's part of very many samples and prints what it did.

    Raises:
        UserError: the request is not valid.
    """
    from components.shards import shards
    from core.config import parse_yaml

    say(printable_json(json.dumps(shards(parse_yaml(request, "--request"), os.environ))), lines=True)


def main(arguments: list[str]) -> int:
    """Runs what the arguments ask for; the exit code."""
    from core.errors import UserError
    from core.storage.faults import every_refusal

    try:
        with every_refusal():
            return _answer(arguments)
    except UserError as error:
        say(f"error: {error}", to=sys.stderr)
        return UserError.EXIT_CODE


def _answer(arguments: list[str]) -> int:
    from core.errors import UserError

    if arguments == ["steps"]:
        say("\n".join(STEPS), lines=True)
    elif arguments[:1] == ["doctor"]:
        from components.inside import report

        return report(as_json="--json" in arguments)
    elif len(arguments) == 5 and (arguments[0], arguments[1], arguments[3]) == ("train-job", "--job", "--out"):
        train_alone(arguments[2], arguments[4])
    elif len(arguments) == 3 and arguments[:2] == ["train-node", "--order"]:
        from components.nodes import train_node

        train_node(arguments[2])
    elif len(arguments) >= 3 and arguments[:2] == ["trial", "--request"]:
        from components.tuning import tuned_trial

        tuned_trial(arguments[2], arguments[3:])
    elif len(arguments) == 3 and arguments[:2] == ["shards", "--request"]:
        draw_many(arguments[2])
    elif len(arguments) == 3 and arguments[1] == "--executor_input":
        run(arguments[0], arguments[2])
    else:
        raise UserError(
            "expected: steps | doctor --inside [--json] | STEP --executor_input JSON"
            " | train-job --job JSON --out URI | train-node --order URI | trial --request URI | shards --request JSON"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
