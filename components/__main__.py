"""`python -m components`: the entry point of the image. Runs a step by its name, or looks whether all is whole.

python -m components steps
python -m components doctor --inside
python -m components train --executor_input JSON
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from typing import Any

import components


def steps() -> dict[str, Any]:
    """Every component by the name of its function, which unlike the name of its task is unique."""
    from kfp.dsl.python_component import PythonComponent

    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(components.__path__):
        if module.name != "__main__":
            members = vars(importlib.import_module(f"components.{module.name}"))
            found |= {
                value.python_func.__name__: value for value in members.values() if isinstance(value, PythonComponent)
            }
    return dict(sorted(found.items()))


def run(name: str, executor_input: str) -> None:
    """Executes one step as KFP's own launcher would.

    Raises:
        UserError: there is no such step, or the input is not JSON.
    """
    from kfp.dsl.executor import Executor

    from core.errors import UserError

    known = steps()
    if name not in known:
        raise UserError(f"step {name!r}: there is none; allowed: {', '.join(known)}, doctor, steps")
    try:
        values = json.loads(executor_input)
    except ValueError as error:
        raise UserError(f"--executor_input: not JSON: {error}") from None
    Executor(executor_input=values, function_to_execute=known[name].python_func).execute()


def main(arguments: list[str]) -> int:
    """Runs what the arguments ask for; the exit code."""
    from core.errors import UserError

    try:
        if arguments == ["steps"]:
            print("\n".join(steps()))
        elif arguments[:1] == ["doctor"]:
            from components.inside import report

            return report(as_json="--json" in arguments)
        elif len(arguments) == 3 and arguments[1] == "--executor_input":
            run(arguments[0], arguments[2])
        else:
            raise UserError("expected: steps | doctor --inside [--json] | STEP --executor_input JSON")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return UserError.EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
