"""Torture: every way in which a training, a checkpoint, a bucket, a pipeline or an input goes wrong, many times.

`make torture` runs it for half an hour and prints the table of docs/trust.md; `test_torture.py` runs a small share.
"""

from tests.torture import damage, fuzz, pipeline, processes, storage, training
from tests.torture.trial import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault for module in (training, processes, damage, storage, pipeline, fuzz) for fault in module.FAULTS
}
