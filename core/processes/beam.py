"""Blocks of work done on Apache Beam: by processes of this machine, or on Dataflow by machines of their own.

What is asked and what is answered are files, named by the hash of what is asked, so that an answer outlives whoever
gave it:

    <place>/asked/<SHA-256>      a block of work
    <place>/answered/<SHA-256>   what was answered

Beam spreads the names and does a part again that a machine did not end; a step that was killed and begins again asks
for what is missing. Beam itself runs in a program of its own (`python -m core.processes.beam`), which ends with the
one that asks it, and takes the Dataflow job with it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from core import jsontext, storage
from core.errors import UserError
from core.names import inside
from core.printable import say
from core.processes import interpreter, limits
from core.processes.blocks import MOST, Block, Work, received, send
from core.storage import leases
from core.storage.faults import StorageError
from core.storage.remote import PAYER

OPTIONS = "TEXTDIFFUSION_BEAM"
"""Environment variable: options of Beam's pipeline as JSON, such as those of Dataflow; without it, this machine."""
ASKED, ANSWERED = "asked", "answered"
TRIES = 3  # of what no worker has answered
LOST = 75  # exit code where a worker of this machine ended
_LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def in_order(work: Work, blocks: Iterable[Block], place: str, workers: int | None = None) -> Iterator[Block]:
    """work(block) of each of `blocks`, in their order, as `blocks.in_order`; the first when all are done.

    Args:
        work: a function of a module, which machines find by its name; it may be asked twice for one block.
        blocks: what to do.
        place: folder or prefix that all machines reach; removed at the end. What an earlier try has answered counts.
        workers: processes, or machines of Dataflow; None: one for each processor of this machine, or as Dataflow likes.

    Raises:
        UserError: Beam is not installed, `work` raised it for a block, or another process is at `place`.
        RuntimeError: it failed in another way, several times.
    """
    _require_beam()
    if not storage.is_remote(place):
        Path(place).mkdir(parents=True, exist_ok=True)
    with leases.only_one(place, "the work of Beam"):
        names = _ask(work, blocks, place)
        for _ in range(1 if elsewhere() else TRIES):  # Dataflow tries each part four times itself
            if not (missing := _missing(names, place)):
                break
            _run(f"{work.__module__}:{work.__qualname__}", missing, place, workers)
        if missing := _missing(names, place):
            raise RuntimeError(f"{place}: Beam did {len(names) - len(missing)} of {len(names)} parts")
        _require_answers(names, place)
        for name in names:
            facts, arrays = _read(place, ANSWERED, name)
            yield facts["answer"], arrays
        storage.remove(storage.join(place, ANSWERED))
        storage.remove(storage.join(place, ASKED))
    storage.remove(place)


def elsewhere() -> bool:
    """Whether the work is done on machines that reach no folder of this one."""
    return bool(_given())


def _given() -> dict[str, Any]:
    return dict(jsontext.parse(os.environ.get(OPTIONS, "{}").encode(), OPTIONS))


def _require_beam() -> None:
    from importlib.util import find_spec

    if find_spec("apache_beam") is None:
        raise UserError("Apache Beam is not installed: pip install 'textdiffusion[beam]', or in the cloud the image of"
                        " `make image BEAM=1`")  # fmt: skip


def _ask(work: Work, blocks: Iterable[Block], place: str) -> list[str]:
    """Writes what is asked, unless it is there; the names in order."""
    names, there = [], set(storage.list_files(storage.join(place, ASKED)))
    for block in blocks:
        stream = io.BytesIO()
        send(stream, block)
        name = hashlib.sha256(f"{work.__module__}:{work.__qualname__}\0".encode() + stream.getbuffer()).hexdigest()
        if name not in there:
            storage.write_bytes(_file(place, ASKED, name), stream.getvalue())
        names.append(name)
    return names


def _file(place: str, folder: str, name: str) -> str:
    return inside(f"{place}/{folder}", name)


def _missing(names: Sequence[str], place: str) -> list[str]:
    there = set(storage.list_files(storage.join(place, ANSWERED)))
    return list(dict.fromkeys(name for name in names if name not in there))


def _read(place: str, folder: str, name: str) -> Block:
    block = received(io.BytesIO(storage.read_bytes(_file(place, folder, name))))
    if block is None:
        raise StorageError(f"{place}/{folder}/{name}: cannot be read: its content broke off")
    return block


def _require_answers(names: Sequence[str], place: str) -> None:
    """Raises what `work` raised, the first of all, and lets it be asked again when a person has mended it."""
    refused = []
    for name in names:
        with storage.open_read(_file(place, ANSWERED, name)) as stream:
            size = int.from_bytes(stream.read(8), "little")
            facts = json.loads(stream.read(size))
        if "error" in facts:
            refused.append(facts)
            storage.remove(_file(place, ANSWERED, name))
    if refused:
        more = f" (and {len(refused) - 1} more parts were refused)" if len(refused) > 1 else ""
        kind = StorageError if refused[0]["passing"] else UserError
        raise kind(f"{refused[0]['error']}{more}")


def _run(work: str, names: Sequence[str], place: str, workers: int | None) -> None:
    """Has Beam do what is named; what it did not do is missing afterwards."""
    passed = {name: os.environ[name] for name in (PAYER,) if name in os.environ}
    order = {"work": work, "names": list(names), "place": place, "options": _options(_given(), workers),
             "environment": passed}  # fmt: skip
    environment = interpreter.environment({**os.environ, "OMP_NUM_THREADS": "1"})
    program = subprocess.Popen(
        interpreter.program("core.processes.beam"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        start_new_session=True,
        stderr=None if elsewhere() else subprocess.DEVNULL,  # workers of this machine tell all they do
    )  # fmt: skip
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        with suppress(BrokenPipeError):
            program.stdin.write(json.dumps(order).encode() + b"\n")
            program.stdin.flush()
        said = program.stdout.read().decode(errors="replace")
        code = program.wait()
    finally:
        with suppress(BrokenPipeError):
            program.stdin.close()  # upon which it ends, and cancels a job of Dataflow
        with suppress(subprocess.TimeoutExpired):
            program.wait(timeout=60)
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        program.stdout.close()
    if code == UserError.EXIT_CODE:
        raise UserError(f"Dataflow: {said}")
    if code:
        say(f"warning: Beam ended with exit code {code}: {said or 'a worker was lost'}", to=sys.stderr)


def _options(given: dict[str, Any], workers: int | None) -> dict[str, Any]:
    if given:
        return {**given, **({"max_num_workers": workers} if workers else {})}
    count = workers or min(limits.processors(), MOST)
    mode = "multi_processing" if count > 1 else "in_memory"
    return {"runner": _LOCAL, "direct_num_workers": count, "direct_running_mode": mode}


def answer(name: str, work: str, place: str, environment: dict[str, str]) -> None:
    """Does one block, on whichever machine this is; what is refused is an answer too, which no other try would mend."""
    os.environ.update(environment)
    target = _file(place, ANSWERED, name)
    if storage.exists(target):
        return
    module, _, function = work.partition(":")
    try:
        facts, arrays = getattr(import_module(module), function)(_read(place, ASKED, name))
        block: Block = {"answer": facts}, arrays
    except UserError as error:
        block = {"error": str(error), "passing": isinstance(error, StorageError)}, {}
    stream = io.BytesIO()
    send(stream, block)
    storage.write_bytes(target, stream.getvalue())


def main() -> int:
    """Runs the pipeline that comes on the standard input, until that ends."""
    order = json.loads(sys.stdin.buffer.readline())
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    threading.excepthook = _worker_lost
    job: list[Any] = []
    threading.Thread(target=_end_with_input, args=(job,), daemon=True).start()
    logging.disable(logging.CRITICAL)  # what fails is raised, and said in a line
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    pipeline = beam.Pipeline(options=PipelineOptions([], **order["options"]))
    _ = (
        pipeline
        | "names" >> beam.Create(order["names"], reshuffle=False)
        | "spread" >> beam.Reshuffle()
        | "work" >> beam.Map(answer, work=order["work"], place=order["place"], environment=order["environment"])
    )
    try:
        job.append(pipeline.run())
        job[0].wait_until_finish()
    except Exception as error:
        sink.write(" ".join(str(error).split())[-1000:] or type(error).__name__)
        sink.flush()
        return 1 if job or order["options"]["runner"] == _LOCAL else UserError.EXIT_CODE
    return 0


def _worker_lost(failure: threading.ExceptHookArgs) -> None:
    """Beam's local runner would wait for a worker that was killed, for ever; its thread alone tells."""
    if failure.thread is not None and failure.thread.name == "run_worker":
        os._exit(LOST)
    threading.__excepthook__(failure)


def _end_with_input(job: list[Any]) -> None:
    sys.stdin.buffer.read()
    if job:
        with suppress(Exception):
            job[0].cancel()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    os._exit(main())  # its own end would wait for the thread that reads
