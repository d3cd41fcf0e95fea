"""All faults by name, in the order of the table."""

from tests.torture import (
    artifacts,
    bucket,
    damage,
    emulator,
    fuzz,
    owners,
    pipeline,
    processes,
    steps,
    storage,
    surroundings,
    training,
)
from tests.torture.trial import Fault

MODULES = (
    training,
    processes,
    steps,
    owners,
    damage,
    artifacts,
    storage,
    bucket,
    pipeline,
    emulator,
    surroundings,
    fuzz,
)
FAULTS: dict[str, Fault] = {fault.name: fault for module in MODULES for fault in module.FAULTS}
