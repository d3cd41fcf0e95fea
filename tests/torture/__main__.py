"""Kills, breaks and misfeeds everything for a while and prints one table of what survived.

    python -m tests.torture                       every fault, 30 minutes on two cores
    python -m tests.torture --minutes 5 kill-text storage-20
    python -m tests.torture fuzz-idx --seed 17 --trials 1      one trial again

Each fault runs in its own process; two run at a time. The exit code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from tests.torture.faults import FAULTS
from tests.torture.trial import MODULE, Fault, Tally, repeat

ROOT = Path(__file__).parents[2]
LANES = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"all, or some of: {', '.join(FAULTS)}")
    parser.add_argument("--minutes", type=float, default=30.0, help="of two cores, for all faults together")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial; the next ones count up")
    parser.add_argument("--trials", type=int, help="of each fault, instead of --minutes")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.faults if name not in FAULTS]
    if unknown:
        parser.error(f"there is no fault {unknown[0]!r}; there are: {', '.join(FAULTS)}")
    chosen = [FAULTS[name] for name in arguments.faults] or list(FAULTS.values())
    if arguments.json:
        (fault,) = chosen
        seconds = None if arguments.trials else 60 * arguments.minutes
        print(json.dumps(asdict(repeat(fault, seed=arguments.seed, seconds=seconds, trials=arguments.trials))))
        return 0
    total = sum(fault.weight for fault in chosen)
    shares = {fault.name: LANES * arguments.minutes * fault.weight / total for fault in chosen}
    with ThreadPoolExecutor(LANES) as pool:
        heaviest_first = sorted(chosen, key=lambda fault: -fault.weight)
        running = {
            fault.name: pool.submit(_apart, fault, shares[fault.name], arguments.seed, arguments.trials)
            for fault in heaviest_first
        }
    tallies = {fault.name: running[fault.name].result() for fault in chosen}
    print(table(chosen, tallies))
    lost = [line for tally in tallies.values() for line in tally.lost]
    for line in lost:
        print(f"lost: {line}", file=sys.stderr)
    return 1 if lost else 0


def _apart(fault: Fault, minutes: float, seed: int, trials: int | None) -> Tally:
    """The tally of a fault that runs in a process of its own."""
    command = [sys.executable, "-m", "tests.torture", fault.name, "--json", "--seed", str(seed)]
    command += ["--minutes", str(minutes)] if trials is None else ["--trials", str(trials)]
    began = time.monotonic()
    print(f"{fault.name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    )
    try:
        tally = Tally(**json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        tally = Tally(tries=1, lost=[f"{fault.name} itself ended with {done.returncode}"])
    print(
        f"{fault.name}: {tally.tries} tries, {len(tally.lost)} lost, {time.monotonic() - began:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return tally


def table(faults: list[Fault], tallies: dict[str, Tally]) -> str:
    """One Markdown table, with the command that repeats each row; who stopped clean is among those who survived."""
    rows = ["| fault | tries | survived | stopped clean | lost | again |", "|---|---:|---:|---:|---:|---|"]
    for fault in faults:
        tally = tallies[fault.name]
        rows.append(
            f"| {fault.title} | {tally.tries:,} | {tally.survived:,} | {tally.stopped:,} | {len(tally.lost)} |"
            f" `{MODULE} {fault.name}` |"
        )
    every = list(tallies.values())
    rows.append(
        f"| **all** | {sum(t.tries for t in every):,} | {sum(t.survived for t in every):,} |"
        f" {sum(t.stopped for t in every):,} |"
        f" {sum(len(t.lost) for t in every)} | `make torture` |"
    )
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
