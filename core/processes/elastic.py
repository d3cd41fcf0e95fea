"""torchrun, tied to the process that started it: killed outright, a training leaves none of its processes behind.

Workers lead sessions of their own, so that no signal to the group of a step reaches them. One that is left behind
would write into the folder of checkpoints that the training's next attempt uses.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "TEXTDIFFUSION_PARENT"  # id of the process that a worker is tied to
STOPPED = 128 + signal.SIGTERM
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def tie(parent: int) -> None:
    """Lets this process be killed when the process `parent`, which must have started it, ends. Linux; elsewhere: no."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), signal.SIGKILL)


def main(parent: int, arguments: list[str]) -> int:
    """Runs torchrun with these arguments; the exit code, `STOPPED` after a signal."""
    tie(parent)
    os.environ[PARENT] = str(os.getpid())
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException

    try:
        run.main(arguments)
    except SignalException:  # was asked for: no traceback
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
