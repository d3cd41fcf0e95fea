"""How good a model is: the metrics of the step `evaluate`, each with its floor, count and judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core import storage
from core.config import config_hash
from core.errors import UserError
from core.images.image_diffusion import ImageDiffusion
from core.images.sampling import sample_into
from core.modality import run
from core.names import inside
from core.processes.world import World
from core.requests import EvaluateRequest, SampleRequest, TrainJudgeRequest
from core.storage import scratches
from core.text.text_diffusion import TextDiffusion
from textdiffusion.datasets import Images, Texts

COUNT = {"images": 1000, "text": 24}
TEXT: dict[str, Any] = {"temperatures": [], "spans": []}  # curves of the report, which take their time


class Metrics(dict[str, dict[str, Any]]):
    """name -> {"value", "floor", "n", "judge", ...}; printed as a table. The floor is the value for real data."""

    def __repr__(self) -> str:
        width = max(map(len, self), default=4)
        lines = [f"{'metric':{width}}  {'value':>10}  {'floor':>10}  {'n':>8}  judge"]
        for name, one in self.items():
            value, floor = (_number(one.get(key)) for key in ("value", "floor"))
            lines.append(
                f"{name:{width}}  {value:>10}  {floor:>10}  {one.get('n', ''):>8}  {(one.get('judge') or '-')[:12]}"
            )
        return "\n".join(lines)


def evaluate(
    model: ImageDiffusion | TextDiffusion,
    data: Images | Texts,
    count: int | None = None,
    *,
    sample: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Metrics:
    """Draws samples and compares them with real data: images of training and of test, text held out.

    Images are compared by a judge, a classifier trained on the real training split: once for each `data`. Its features
    mean something only for images with labels.

    Args:
        model: what is measured.
        data: the data set that it was trained on.
        count: samples; left out: 1,000 images, 24 texts.
        sample: keys of the section `sample` of a job: how they are drawn; left out: as `model.sample` draws.
        settings: keys of the section `evaluate` of a job, such as judge_epochs for images, spans for text.

    Raises:
        UserError: model and data do not belong together, or the data are too few.
    """
    if isinstance(model, ImageDiffusion) is not isinstance(data, Images):
        raise UserError(
            f"evaluate: found {type(model).__name__} and {type(data).__name__}; give data of the model's kind"
        )
    section = {**({} if isinstance(data, Images) else TEXT), **settings}
    judged = {key: value for key, value in section.items() if key.startswith("judge_")}
    judge = inside(data.work, f"judge-{config_hash(judged)}")
    if not judge.exists():
        run(TrainJudgeRequest(modality=data.modality, evaluate=judged, dataset=data.folder, out=judge))
    wanted = {"seed": 0, **(sample or {})}
    with scratches.temporary_folder("evaluate") as scratch:
        trained, drawn, measured = scratch / "model", scratch / "samples", scratch / "evaluation"
        if isinstance(model, ImageDiffusion):
            section.setdefault("count", COUNT["images"] if count is None else count)
            labels = wanted.pop("labels", None)
            asked = model.settings(section["count"], label=labels, **wanted)
            sample_into(drawn, model.trained, asked, World(0, 1, model.device))
        else:
            model.save(trained)
            asked_of_text = {
                "modes": ["diffusion"],
                **model.settings(COUNT["text"] if count is None else count, **wanted),
            }
            run(SampleRequest(modality="text", sample=asked_of_text, model=trained, out=drawn))
        run(
            EvaluateRequest(
                modality=data.modality,
                evaluate=section,
                dataset=data.folder,
                judge=judge,
                model=trained,
                samples=drawn,
                out=measured,
            )
        )
        return Metrics(storage.read_json(measured / "metrics.json"))


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}"
