"""What KFP changes in this process while it runs a pipeline is put back."""

import builtins
import logging
from unittest.mock import Mock

from local.kfp_seam import observed


def test_prints_and_logs_are_afterwards_what_they_were() -> None:
    root = logging.getLogger()
    before = (builtins.print, root.level, root.handlers[:])
    with observed(Mock(), None):
        builtins.print = Mock()  # as two tasks of a loop leave it
        root.handlers.clear()
        root.addHandler(logging.NullHandler())
        root.setLevel(logging.DEBUG)
    assert (builtins.print, root.level, root.handlers) == before
