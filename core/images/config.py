"""Settings of image jobs: the sections `data`, `model`, `sample` and `evaluate` of an image job's YAML.

Every section is frozen and refuses unknown keys; bounds are wide enough for real work and narrow enough that a
slip of the keyboard (10^12 channels) is refused in one line instead of running out of memory an hour later.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.config import Frozen, Place
from core.images.networks import Network, UNetConfig
from core.sources.config import HubPlace

NOISY = ("dpmpp_sde", "ddpm")
"""Samplers that add noise at every step."""

EMBEDDED = ("digits", "mnist-small")
"""Sources that are part of the library and read no folder."""


class ShardData(Frozen):
    """When images are written as shards, which a training reads through a cache; smaller sets are one file a split."""

    above_gb: float = Field(16, ge=0, description="Gigabytes of pixels above which a data set is written as shards")
    mb: float = Field(256, gt=0, le=4096, description="Megabytes of one shard; training caches nine of them or more")
    place: Place | None = Field(
        None, description="Folder or gs:// prefix of the shards; null: beside the data set, in its bucket or its folder"
    )
    engine: Literal["processes", "beam"] = Field(
        "processes",
        description="Who writes shards of images that are files: processes of the step's machine, or Apache Beam (on"
        " Dataflow, where a run on Vertex AI says so); the shards are the same",
    )
    workers: int | None = Field(
        None, ge=1, le=4000, description="Processes at once, on Dataflow machines; null: one for each processor"
    )


class ImageData(HubPlace):
    """Which images, from where, and how they are split."""

    source: Literal["digits", "mnist-small", "mnist", "idx", "folder", "npz", "huggingface"] = Field(
        "digits",
        description="Embedded: digits (1,797 scans of 8x8), mnist-small (7,000 of MNIST); mnist: downloaded, or its IDX"
        " files; or your own",
    )
    data_dir: Place | None = Field(
        default=None, description="Folder, file, zip or tar archive, or gs:// prefix that holds the source"
    )
    image_column: str | None = Field(None, description="For huggingface; null: the only column of images")
    label_column: str | None = Field(None, description="For huggingface; null: the only column of classes")
    resolution: int | None = Field(default=None, ge=4, le=512, description="Side in pixels; null keeps the native size")
    channels: Literal["auto", 1, 3] = Field(default="auto", description="auto: 1 for grey images, 3 for coloured ones")
    background: Annotated[str, Field(pattern=r"^(white|black|#[0-9a-fA-F]{6})$")] | None = Field(
        None, description="white, black or '#rrggbb': what shows through transparent pixels; null refuses them"
    )
    value_range: tuple[float, float] | None = Field(
        None, description="Pixel values that become black and white; null: 0 and the most that the format holds"
    )
    class_names: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] | None = Field(
        None, max_length=100_001, description="Names in the order of the labels; null: those of the source"
    )
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5, description="Share of the training images held out")
    test_fraction: float = Field(
        default=0.2, gt=0, lt=0.5, description="Used when the source has no test split of its own"
    )
    split_seed: int = Field(default=0, ge=0)
    overlap: float = Field(
        default=0.05, ge=0, le=1, description="Largest share of held-out images that may equal a training image"
    )
    limit: int | None = Field(default=None, ge=10, description="Use only that many training images (for quick trials)")
    shards: ShardData = ShardData()

    @model_validator(mode="after")
    def _usable(self) -> ImageData:
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range is {list(self.value_range)}; the first value must be below the second")
        if self.class_names is not None and len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names has a name twice")
        if self.shards.engine == "beam" and self.source != "folder":
            raise ValueError(
                f"shards.engine: beam reads images that are files (source: folder); found source: {self.source}"
            )
        return self

    @property
    def place_problem(self) -> str:
        """What is wrong with where the source is to be; empty if nothing is."""
        if self.source in EMBEDDED and self.data_dir is not None:
            return (
                f"data.data_dir: found {self.data_dir!r}, but the source `{self.source}` is embedded and reads no"
                " folder; set data.source to mnist, idx, folder, npz or huggingface"
            )
        if self.data_dir is not None or self.source in (*EMBEDDED, "mnist"):
            return ""
        if self.source == "huggingface" and self.dataset is not None:
            return ""
        name = " or data.dataset names one of huggingface.co" if self.source == "huggingface" else ""
        return f"data.data_dir: not set; the source `{self.source}` needs a path or a gs:// prefix{name}"


class Schedule(Frozen):
    """DDPM's discrete schedule of linear betas (Ho et al. 2020)."""

    steps: int = Field(default=1000, ge=2, le=100_000)
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=2e-2, gt=0, lt=1)


UNMEASURED = 0.6  # sigma_data: auto, where there are no data to measure


class Process(Frozen):
    """The noise process: what the network predicts, which noise levels it sees, how errors are weighted."""

    parameterisation: Literal["edm", "epsilon", "v", "flow"] = "edm"
    sigma_data: Annotated[float, Field(gt=0, le=100)] | Literal["auto"] = Field(
        default="auto", description="Standard deviation of the data, in units of [-1, 1]; auto: as prepare-data finds"
    )
    density: Literal["lognormal", "logit_normal", "uniform"] = Field(
        default="lognormal", description="lognormal: ln sigma; logit_normal: flow time; uniform: over the DDPM schedule"
    )
    location: float = Field(default=-0.4, ge=-20, le=20, description="Mean of ln sigma, or of logit(flow time)")
    scale: float = Field(default=1.2, gt=0, le=20, description="Standard deviation of the same")
    weight: Literal["output", "min_snr", "constant"] = Field(
        default="output",
        description="output: unit weight on what the network predicts; the others weigh the clean image",
    )
    schedule: Schedule = Schedule()
    margin: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="How far beyond -1 and 1 the network learns full black and white; decoding clamps what it draws",
    )


class FewSteps(Frozen):
    """How a trained model becomes one that draws in one or two steps, its guidance included (core/images/few_steps.py).

    It is sampled by `sampler: ddpm, steps: 2, sigma_max: TOP, sigma_min: MIDDLE` without guidance.
    """

    share: float = Field(default=0.1, gt=0, lt=1, description="Of the budget, at its end")
    paths: int = Field(
        default=2000, ge=1, le=1_000_000, description="Of the teacher, from noise to image, held in memory"
    )
    rate: float = Field(default=0.5, gt=0, le=1, description="Of the training's learning rates")
    top: float = Field(default=20.0, gt=0, description="Noise level at which paths begin")
    middle: float = Field(default=1.5, gt=0, description="Noise level of the second evaluation")
    steps: int = Field(default=16, ge=2, le=1000, description="Of the teacher along a path, by dpmpp")
    guidance: float = Field(default=1.2, ge=0, le=50, description="As sample.guidance, of the teacher; so are the next")
    guidance_low: float = Field(default=0.2, ge=0)
    guidance_high: float = Field(default=5.0, gt=0)
    autoguidance: float = Field(default=1.0, ge=0, le=50)

    @model_validator(mode="after")
    def _ordered(self) -> FewSteps:
        if self.middle >= self.top:
            raise ValueError(f"middle is {self.middle}, top is {self.top}; it must be the smaller")
        return self


class ImageModel(Frozen):
    """Network and noise process."""

    network: Network = UNetConfig()
    process: Process = Process()
    few_steps: FewSteps | None = Field(
        default=None, description="The last part of the training makes it a model of one or two steps; null: none"
    )
    label_dropout: float = Field(default=0.1, ge=0, le=1, description="Share of examples trained without their class")
    conditional: bool = True

    def with_deviation(self, std: float) -> ImageModel:
        """The same with `std`, of the training pixels, where `sigma_data` is auto; constant images have none."""
        if self.process.sigma_data != "auto":
            return self
        process = self.process.model_copy(update={"sigma_data": max(round(std, 4), 0.01)})
        return self.model_copy(update={"process": process})


class ImageSample(Frozen):
    """How samples are drawn."""

    count: int = Field(default=1000, ge=1, le=1_000_000)
    sampler: Literal["dpmpp", "dpmpp_sde", "heun", "ddim", "ddpm"] = "dpmpp"
    steps: int = Field(default=16, ge=1, le=10_000)
    grid: Literal["karras", "flow", "ddpm"] = Field(default="karras", description="Spacing of the noise levels")
    sigma_min: float = Field(default=0.02, gt=0, le=10)
    sigma_max: float = Field(default=40.0, gt=0, le=10_000)
    start: Literal["noise", "estimate"] = Field(
        default="noise", description="x = sigma_max n, or that and the denoiser's estimate for it: one evaluation more"
    )
    rho: float = Field(default=7.0, ge=1, le=100, description="Exponent of the Karras spacing")
    guidance: float = Field(default=1.0, ge=0, le=50, description="1 is none; w is D_none + w (D_class - D_none)")
    guidance_low: float = Field(default=0.0, ge=0, description="Guide only above this sigma")
    guidance_high: float = Field(default=1e4, gt=0, description="Guide only up to this sigma")
    autoguidance: float = Field(
        default=1.0, ge=0, le=50, description="1 is none; w is D_guide + w (D - D_guide); needs train.guide_at"
    )
    feedback: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of its samples of a class that the network is taken to draw of any: the less a sample's path"
        " looks like its class, the more it is guided; 0 is none; for dpmpp_sde and ddpm",
    )
    redraw: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of the samples that is drawn again: those that say least of their class themselves",
    )
    labels: tuple[Annotated[int, Field(ge=-1, le=100_000)] | Annotated[str, Field(max_length=200)], ...] | None = Field(
        None, description="Classes to draw by name, in turn; null: all of them; -1: without a class"
    )
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=250, ge=1, le=100_000)
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = Field(
        default=None, description="null: the setting train.precision that the model was trained with"
    )

    @model_validator(mode="after")
    def _ordered(self) -> ImageSample:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min is {self.sigma_min}, sigma_max is {self.sigma_max}; sigma_min must be the smaller"
            )
        if self.feedback and self.sampler not in NOISY:
            raise ValueError(
                f"feedback is {self.feedback:g}, sampler is {self.sampler}; feedback needs noise at every step: choose"
                " dpmpp_sde or ddpm, or set feedback to 0"
            )
        return self


class ImageEvaluate(Frozen):
    """How samples are compared with real images."""

    count: int = Field(default=1000, ge=10, le=1_000_000, description="Samples compared; fewer if fewer were drawn")
    batch_size: int = Field(default=256, ge=1, le=100_000)
    nearest: int = Field(default=3, ge=1, le=50, description="k of precision and recall's nearest-neighbour balls")
    neighbours: int = Field(default=16, ge=0, le=1000, description="Samples shown with their nearest training images")
    judge_epochs: float = Field(
        default=20, gt=0, le=1000, description="Most passes of the judge over the training images"
    )
    judge_minutes: float | None = Field(default=None, gt=0, le=1440, description="Stop training the judge after this")
    judge_seed: int = Field(default=0, ge=0)
