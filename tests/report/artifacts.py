"""Artifact directories like those of a real run, made without training: noise added to real digits, words shuffled."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.noise import karras_sigmas

Json = dict[str, Any]
PROSE = (
    "the value of an object is what a statement returns when it is called with no arguments and each "
    "name binds to a module or class whose scope may be nested inside another function definition"
)
WORDS = PROSE.split()


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, enlarged to 16 x 16 with uint8 values."""
    from sklearn.datasets import load_digits

    found = load_digits()
    small = (found.images * 15.9375).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(one).resize((16, 16), Image.Resampling.BICUBIC)) for one in small])
    return images, found.target.astype(np.int64)


def train_log(sigmas: list[float], total: int, random: np.random.Generator) -> list[Json]:
    """A loss that falls like a power of the examples, with noise, and its validations."""
    rows: list[Json] = []
    for seen in range(128, total + 1, 128):
        base = 0.08 + 0.9 * (seen / 300) ** -0.55
        rate = 1e-3 * min(1, seen / 2000) * (1 - seen / total * 0.98)
        noise = math.exp(0.14 * random.standard_normal())
        rows.append(
            {
                "examples": seen,
                "seconds": seen / 410,
                "loss": base * noise,
                "lr": rate,
                "rate": 410 + 9 * noise,
                "grad_norm": 0.3 * noise * (1 + 3000 / (seen + 500)),
            }
        )
        if seen % (128 * 40) == 0:
            bins = {
                f"loss/sigma={sigma:.3g}": base * (0.35 + 1.3 * math.exp(-((math.log(sigma) + 1) ** 2) / 4))
                for sigma in sigmas
            }
            rows.append({"examples": seen, "validation": {"loss": base * 1.04, **bins}})
    return rows


def run_json(job: str, steps: list[str], config: Json) -> Json:
    """A finished run whose first steps came from cache."""
    seconds = {"train": 192.0, "train-judge": 21.0, "sample": 17.5, "evaluate": 9.2}
    return {
        "id": f"{job}-20261124-035407",
        "pipeline": "images",
        "job": job,
        "status": "succeeded",
        "created": "2026-11-24T03:54:07+00:00",
        "seconds": 246.0,
        "runner": "local",
        "code_version": "4f1c2ab",
        "image": "python@sha256:" + _digest("image")[:12],
        "config": config,
        "config_hash": _digest("config"),
        "parents": [],
        "steps": [
            {
                "name": name,
                "state": "cached" if name in ("prepare-data", "train-judge") else "succeeded",
                "cached": name in ("prepare-data", "train-judge"),
                "seconds": seconds.get(name, 1.4),
                "error": None,
                "artifacts": {},
            }
            for name in steps
        ],
        "gate": {
            "decision": "promote",
            "reason": "improved: frechet_distance 2.31 against the champion's 2.74 (lower is better)",
            "challenger": {"weights_sha256": _digest("weights")},
            "champion": {"version": 3},
        },
    }


def image_run(root: Path, *, seed: int = 0, frames: int = 19) -> Json:
    """A finished conditional digits run under `root`; returns the keyword arguments of `build`."""
    random = np.random.default_rng(seed)
    images, labels = digits()
    train, test = images[:1400], images[1400:]
    weights, judge, content = _digest("weights"), _digest("judge"), _digest("content")
    histogram = np.bincount(labels[:1400], minlength=10).tolist()
    _write(
        root / "dataset/dataset.json",
        {
            "modality": "images",
            "source": "digits",
            "counts": {"train": 1294, "validation": 143, "test": 360},
            "shape": [16, 16],
            "value_range": [0, 255],
            "class_names": [str(i) for i in range(10)],
            "class_histogram": {"train": histogram},
            "content_sha256": content,
            "split_seed": 0,
        },
    )
    Image.fromarray(_sheet(train[:200], 20)).save(root / "dataset/contact_sheet.png")
    np.save(root / "dataset/train_images.npy", train)
    np.save(root / "dataset/train_labels.npy", labels[:1400])
    _write(root / "judge/judge.json", {"sha256": judge, "accuracy": 0.9861, "n": 360, "data": content})
    sigmas = [0.02 * 2000 ** (index / 11) for index in range(12)]
    _write(
        root / "model/model.json",
        {
            "modality": "images",
            "objective": "diffusion",
            "examples_seen": 76800,
            "weights_sha256": weights,
            "device": "cpu, 2 threads",
            "precision": "fp32: no native bf16",
            "torch": "2.14.1",
            "python": "3.11.2",
            "parameters": 1153537,
            "train_seconds": 187.3,
            "effective_batch_size": 128,
        },
    )
    _write(root / "model/train_log.jsonl", train_log(sigmas, 76800, random))
    order = np.argsort(labels[:1400], kind="stable")
    picked = np.stack([train[order[np.searchsorted(labels[:1400][order], i % 10) + i // 10]] for i in range(400)])
    picked_labels = np.arange(400) % 10
    clean = picked.astype(float) / 127.5 - 1
    (root / "model/previews").mkdir()
    for index, sigma in enumerate(np.geomspace(1.2, 0.05, 9)):
        noisy = clean[:60] + sigma * random.standard_normal(clean[:60].shape)
        Image.fromarray(_sheet(_bytes(noisy), 12)).resize((12 * 32, 5 * 32), 0).save(
            root / f"model/previews/{(index + 1) * 8533:012d}.png"
        )
    samples = root / "samples"
    samples.mkdir()
    np.savez(
        samples / "samples.npz", images=_bytes(clean + 0.05 * random.standard_normal(clean.shape)), labels=picked_labels
    )
    levels = karras_sigmas(frames - 1, 0.02, 40).numpy()
    noise = random.standard_normal((60, 16, 16))
    path = np.stack([_bytes((clean[:60] + level * noise) / math.sqrt(1 + level**2 / 2)) for level in levels])
    np.savez(samples / "trajectory.npz", images=path, sigmas=levels)
    _write(
        samples / "sample.json",
        {
            "sampler": "dpmpp",
            "steps": frames - 1,
            "nfe": frames - 1,
            "guidance": 1.0,
            "seed": 0,
            "seconds": 17.1,
            "count": 400,
            "weights_sha256": weights,
        },
    )
    confusion = np.diag(random.integers(36, 41, 10))
    for i, j in ((3, 9), (8, 1), (9, 4), (4, 9), (7, 1)):
        confusion[i, j] = 40 - confusion[i, i]
    _write(
        root / "evaluation/metrics.json",
        {
            "frechet_distance": {"value": 2.31, "floor": 1.42, "n": 400, "judge": judge, "better": "lower"},
            "kernel_distance": {"value": 0.00412, "floor": 0.00031, "n": 400, "judge": judge, "sd": 0.0008},
            "precision": {"value": 0.912, "floor": 0.958, "n": 400, "judge": judge},
            "recall": {"value": 0.874, "floor": 0.951, "n": 400, "judge": judge},
            "class_accuracy": {"value": 0.9725, "floor": 0.9861, "n": 400, "judge": judge},
            "nearest_neighbour": {"value": 3.91, "floor": 3.44, "n": 400, "judge": None},
        },
    )
    _write(
        root / "evaluation/evaluation.json",
        {
            "evaluation_key": _digest("key"),
            "confusion": confusion.tolist(),
            "per_class_accuracy": (np.diag(confusion) / confusion.sum(1)).tolist(),
            "class_histogram": {"samples": confusion.sum(0).tolist(), "real": histogram},
        },
    )
    blurred = _bytes(clean + 0.4 * random.standard_normal(clean.shape))
    squared = [((train.astype(float) - one) ** 2).sum(axis=(1, 2)) for one in blurred[:16].astype(float)]
    near = train[[int(one.argsort()[1]) for one in squared]]
    np.savez(
        root / "evaluation/neighbours.npz",
        samples=_bytes(clean[:16]),
        neighbours=near,
        distances=random.gamma(28, 0.14, 400),
        test_distances=random.gamma(24, 0.145, 360),
        test=test[:1],
    )
    config = {
        "job": "digits",
        "description": "Handwritten digits, from scikit-learn's 1,797 scans.",
        "modality": "images",
        "data": {"source": "digits", "data_dir": None, "validation_fraction": 0.1, "split_seed": 0},
        "model": {"network": {"name": "unet", "channels": [32, 64, 128], "attention": True}, "label_dropout": 0.1},
        "train": {"minutes": 3, "batch_size": 128, "learning_rate": 0.001, "seed": 0, "compile": False},
        "sample": {"count": 400, "sampler": "dpmpp", "steps": 18, "guidance": 1.0, "seed": 0},
        "gate": {"metric": "frechet_distance", "maximum_ratio": 3.0},
    }
    steps = ["prepare-data", "train-judge", "train", "sample", "evaluate", "gate", "register"]
    return {
        **{name: root / name for name in ("dataset", "judge", "model", "samples", "evaluation")},
        "run": run_json("digits", steps, config),
    }


def text_run(root: Path, *, seed: int = 0) -> Json:
    """A finished text run with an autoregressive control under `root`; returns the keyword arguments of `build`."""
    random = np.random.default_rng(seed)
    weights, judge, content = _digest("text weights"), _digest("text judge"), _digest("text")

    def sentence(words: int) -> str:
        return " ".join(random.choice(WORDS, words)).capitalize() + ".\n"

    _write(
        root / "dataset/dataset.json",
        {
            "modality": "text",
            "source": "pydoc",
            "counts": {"train": 402113, "validation": 22310, "test": 22310},
            "tokenizer": "bpe",
            "vocabulary_size": 512,
            "content_sha256": content,
            "split_seed": 0,
        },
    )
    _write(root / "judge/judge.json", {"sha256": judge, "nats_per_character": 1.41})
    metadata = {"device": "cpu, 2 threads", "torch": "2.14.1", "train_seconds": 181.0}
    gammas = [float(gamma) for gamma in range(-1, 9)]
    for name, total in (("model", 51200), ("autoregressive", 25600)):
        _write(
            root / name / "model.json",
            {
                "modality": "text",
                "objective": name,
                "examples_seen": total,
                "weights_sha256": weights,
                **metadata,
            },
        )
        _write(root / name / "train_log.jsonl", train_log([math.exp(g) for g in gammas], total, random))
    prompt, before, after = "The value of ", "An object ", " when it is called."
    rows = [
        {"mode": mode, "prompt": "", "text": sentence(38), "seed": index}
        for mode in ("diffusion", "autoregressive")
        for index in range(6)
    ]
    rows += [{"mode": "guided", "prompt": prompt, "text": prompt + sentence(30), "seed": i} for i in range(6)]
    rows += [
        {
            "mode": "infill",
            "prompt": f"{before}___{after}",
            "text": before + sentence(5)[:-2].lower() + after,
            "seed": i,
        }
        for i in range(6)
    ]
    _write(root / "samples/samples.jsonl", rows)
    finals = [sentence(36) for _ in range(4)]
    letters = list("abcdefghijklmnopqrstuvwxyz    ,.\n")
    frames = []
    when = [random.random(len(text)) for text in finals]
    for index in range(33):
        share = index / 32
        texts = [
            "".join(
                character if moment < share**1.4 or share == 1 else str(random.choice(letters))
                for character, moment in zip(text, moments, strict=True)
            )
            for text, moments in zip(finals, when, strict=True)
        ]
        frames.append({"gamma": 8 - 9 * share, "tokens": [list(text) for text in texts]})
    _write(root / "samples/trajectory.jsonl", frames)
    _write(
        root / "samples/sample.json",
        {"sampler": "ddim", "steps": 128, "guidance": 1.5, "count": len(rows), "seed": 0, "weights_sha256": weights},
    )
    _write(
        root / "evaluation/metrics.json",
        {
            "word_validity": {"value": 0.861, "floor": 0.943, "n": 64, "judge": None, "better": "higher"},
            "word_validity_4": {"value": 0.793, "floor": 0.902, "n": 64, "judge": None, "better": "higher"},
            "bits_per_character_4": {"value": 2.26, "se": 0.021, "floor": 2.31, "n": 8192, "judge": None},
            "bits_over_autoregressive_4": {"value": -0.05, "se": 0.018, "floor": None, "n": 8192, "judge": None},
            "bound_bits_per_character": {"value": 2.24, "se": 0.03, "floor": 2.31, "n": 8192, "judge": None},
            "judge_nll": {"value": 2.11, "floor": 1.66, "n": 64, "judge": judge},
            "entropy": {"value": 3.28, "floor": 3.33, "n": 64, "judge": None},
            "js_1": {"value": 0.012, "floor": 0.009, "n": 64, "judge": None},
            "js_4": {"value": 0.534, "floor": 0.458, "n": 64, "judge": None},
            "distinct_2": {"value": 0.41, "floor": 0.44, "n": 64, "judge": None},
            "longest_copy": {"value": 31, "floor": 38, "n": 64, "judge": None},
        },
    )
    alphas = [round(0.1 * index, 1) for index in range(11)]
    _write(
        root / "evaluation/evaluation.json",
        {
            "likelihood": {
                "characters": 18_000,
                "windows": 64,
                "block": 8,
                "tilt": 4.0,
                "bound": 2.24,
                "autoregressive": 2.31,
                "chains": [
                    {
                        "evaluations": evaluations,
                        "steps": 8 * evaluations,
                        "bits": bits,
                        "se": 0.021,
                        "difference": round(bits - 2.31, 3),
                        "difference_se": 0.018,
                    }
                    for evaluations, bits in ((1, 2.47), (2, 2.3), (4, 2.26), (16, 2.245))
                ],
            },
            "frontier": [
                {
                    "mode": mode,
                    "temperature": heat,
                    "judge_nll": base + 1.9 * (heat - 0.7),
                    "entropy": 3.02 + 0.5 * (heat - 0.6) + shift,
                }
                for mode, base, shift in (("diffusion", 1.75, 0.02), ("autoregressive", 1.5, 0.0))
                for heat in (0.7, 0.8, 0.9, 1.0, 1.1)
            ],
            "fusion": [
                {
                    "span": span,
                    "alpha": alphas,
                    "nats_alpha": [1.62 - 0.5 * a + 0.62 * a * a + span / 200 for a in alphas],
                    "w": [*alphas, 1.2, 1.5],
                    "nats_w": [1.62 - 0.42 * w + 0.24 * w * w + span / 200 for w in [*alphas, 1.2, 1.5]],
                    "autoregressive": 1.62 + span / 200,
                    "reranked": 1.58 + span / 200,
                    "drafts": 16,
                    "examples": [
                        {
                            "left": " ".join(words[:20]) + " ",
                            "tokens": [f"{word} " for word in words[20:24]],
                            "right": " ".join(words[24:40]),
                            "nats_alpha": [[2.0 - a, 1.0, 0.5 + a, 0.1] for a in alphas],
                            "nats_w": [[2.0 - w, 1.0, 0.5 + w, 0.1] for w in [*alphas, 1.2, 1.5]],
                        }
                        for words in (WORDS, WORDS[5:] + WORDS)
                    ],
                }
                for span in (8, 32)
            ],
            "gamma_bins": [
                {
                    "gamma": g,
                    "no_context": 3.3 / (1 + math.exp(-(g - 2.4) * 1.1)),
                    "loss": 2.5 / (1 + math.exp(-(g - 3.4))),
                }
                for g in gammas
            ],
        },
    )
    config = {
        "job": "pydoc",
        "description": "Python's own documentation.",
        "modality": "text",
        "train": {"minutes": 3, "batch_size": 64},
        "sample": {"steps": 128, "temperature": 0.9},
    }
    steps = ["prepare-data", "train-judge", "train-autoregressive", "train", "sample", "evaluate", "gate", "keep"]
    return {
        **{name: root / name for name in ("dataset", "judge", "model", "autoregressive", "samples", "evaluation")},
        "run": run_json("pydoc", steps, config),
    }


def _bytes(images: np.ndarray) -> np.ndarray:
    return np.clip((images + 1) * 127.5, 0, 255).astype(np.uint8)


def _sheet(images: np.ndarray, columns: int) -> np.ndarray:
    rows = len(images) // columns
    height, width = images.shape[1:]
    grid = images[: rows * columns].reshape(rows, columns, height, width)
    return np.ascontiguousarray(grid.transpose(0, 2, 1, 3).reshape(rows * height, columns * width))
