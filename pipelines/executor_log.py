"""What KFP's executor and launcher print into a step's log, told from what the step itself says."""

from __future__ import annotations

import re

_PREFIX = re.compile(r"^\[KFP Executor [^\]]*\]: ")  # of everything that a step logs, the executor's own lines too
_ITS_OWN = ("Looking for component", "Loading KFP component", "Got executor_input", "output file")
_LAUNCHER = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ ")  # klog, of KFP's launcher in a pod


def without_prefix(text: str) -> str:
    """A line of a log as the step wrote it."""
    return _PREFIX.sub("", text)


class Executor:
    """Tells what KFP's executor prints (where it found the function, the input it was given) from a step's lines."""

    def __init__(self) -> None:
        self._inside = False

    def said(self, text: str) -> bool:
        """Whether the next line of a log is the executor's, or the launcher's."""
        if _PREFIX.match(text) and any(words in text for words in _ITS_OWN):
            self._inside = "Got executor_input" in text and not text.rstrip().endswith("}")
            return True
        if self._inside:
            self._inside = text != "}"
            return True
        return _LAUNCHER.match(text) is not None
