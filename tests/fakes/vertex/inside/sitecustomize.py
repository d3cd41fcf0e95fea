"""On PYTHONPATH of what a step starts: gcsfuse's rules hold there too, in the folder that the environment names.

It hides no other sitecustomize.py of the path.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType


def _run(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_here = Path(__file__).resolve()
_gcsfuse = _run(_here.parents[1] / "gcsfuse.py", "gcsfuse_rules")
_rules = _gcsfuse.rules(os.environ[_gcsfuse.MOUNT])
_rules.__enter__()  # kept: a generator that is dropped ends them
for _folder in sys.path:
    _other = Path(_folder or ".", "sitecustomize.py").resolve()
    if _other != _here and _other.is_file():
        _run(_other, "other_sitecustomize")
        break
