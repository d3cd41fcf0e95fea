"""On PYTHONPATH of a step's process: `core.images.modality` is the stand-in beside this file."""

import importlib.abc
import importlib.util
import sys
from pathlib import Path


class StandIn(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != "core.images.modality":
            return None
        return importlib.util.spec_from_file_location(name, Path(__file__).with_name("standin_modality.py"))


sys.meta_path.insert(0, StandIn())
