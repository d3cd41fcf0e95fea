"""All faults by name, in the order of the table."""

from tests.torture import bucket, damage, emulator, fuzz, pipeline, processes, storage, surroundings, training
from tests.torture.trial import Fault

MODULES = (training, processes, damage, storage, bucket, pipeline, emulator, surroundings, fuzz)
FAULTS: dict[str, Fault] = {fault.name: fault for module in MODULES for fault in module.FAULTS}
