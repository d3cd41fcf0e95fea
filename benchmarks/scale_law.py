"""Validation loss against examples and parameters: what `textdiffusion plan` is fitted to.

    python -m benchmarks.scale_law --out build/benchmarks   # goes on after a kill; trainings that are there stay
    python -m benchmarks.scale_law --channels 16,32 --examples 1000,2000 --seeds 1

One training of the job `digits` for each network, number of examples and seed, each with the whole schedule of its
learning rate: points along one long training would have a rate that has not come down. Batches of 32 with a warm-up of
500, everything else the job's. `scale-law.json` is written after each; what a user is told (factory/scale_law.json)
changes with a commit alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contenders import Budget, Choice, Ours
from benchmarks.results import machine, parser, publish, work_folder
from core import storage
from core.images.dataset import ImageDataset
from core.modality import run_here
from core.requests import PrepareDataRequest
from pipelines.jobs import load_job

RATE, BATCH = 0.02, 32  # Muon's learning rate, the job's


def network(channels: str) -> Ours:
    """The job with a network of `channels`, such as "16,32"."""
    widths = [int(width) for width in channels.split(",")]
    changes = {"model": {"network": {"channels": widths}}, "train": {"warmup_examples": 500, "guide_at": None}}
    return Ours(channels, "digits", changes | {"sample": {"autoguidance": 1.0}})


def trained(channels: str, examples: int, seed: int, dataset: Path) -> dict[str, Any]:
    """A row of one training."""
    one = network(channels)
    made = one.train(dataset, Budget(examples), None, Choice(RATE, BATCH, seed))
    size = sum(p.numel() for p in one.network(ImageDataset.open(dataset, verify=False)).parameters())
    row = {"channels": channels, "parameters": size, "examples": made.examples, "seed": seed}
    return row | {"validation_loss": round(made.loss(), 6), "images/s": round(made.examples / made.seconds, 1)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--channels", action="append", help="of a network; may be given again")
    options.add_argument("--examples", default="1000,2000,4000,8000")
    options.add_argument("--seeds", type=int, default=2)
    chosen = options.parse_args()
    path = chosen.out / "scale-law.json"
    rows: list[dict[str, Any]] = storage.read_json(path)["rows"] if path.exists() else []
    done = {(row["channels"], row["asked"], row["seed"]) for row in rows}
    with work_folder(None) as place:
        source = load_job("digits").data.model_dump(mode="json")
        run_here(PrepareDataRequest(modality="images", data=source, out=place / "dataset"))
        for seed in range(chosen.seeds):
            for examples in map(int, chosen.examples.split(",")):
                for channels in chosen.channels or ("16,32", "32,64"):
                    if (channels, examples, seed) not in done:
                        row = trained(channels, examples, seed, place / "dataset")
                        rows.append(row | {"asked": examples})
                        storage.write_json(path, {"measured on": machine(), "batch": BATCH, "rows": rows})
                        print(rows[-1], flush=True)
    publish("scale-law", "Validation loss, one training a row", rows, chosen.out)


if __name__ == "__main__":
    main()
