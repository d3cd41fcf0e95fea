"""Settings of text jobs: the sections `data`, `model`, `sample` and `evaluate` of a text job's YAML."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from core.config import Frozen, Place
from core.errors import UserError
from core.sources.config import HubPlace

GAP = "___"  # stands for the missing part of an infill prompt


def around_gap(prompt: str) -> tuple[str, str]:
    """The text before the gap of an infill prompt, and the text after it.

    Raises:
        UserError: there is more than one gap.
    """
    before, _, after = prompt.partition(GAP)
    if GAP in after:
        raise UserError(f"sample.prompts: found more than one {GAP} in {prompt!r}; one gap a prompt is allowed")
    return before, after


class TokenizerConfig(Frozen):
    """How text becomes tokens."""

    kind: Literal["characters", "bpe"] = "bpe"
    vocabulary: int = Field(512, ge=257, le=65_536, description="tokens of byte-level BPE, 256 of them single bytes")


class TextData(HubPlace):
    """Which text, from where, and how it is split."""

    source: Literal["pydoc", "shakespeare", "file", "huggingface"] = Field(
        "pydoc", description="pydoc: the topics of Python's help(); shakespeare: Tiny Shakespeare; file: your own"
    )
    data_dir: Place | None = Field(
        None, description="file, folder of files, zip or tar archive, or gs:// prefix that holds the source"
    )
    suffixes: tuple[Annotated[str, Field(pattern=r"^\.\w[\w.]*$", max_length=20)], ...] = Field(
        (".txt",), min_length=1, max_length=50, description="how the files of a folder end that are read, such as .txt"
    )
    text_column: str | None = Field(None, description="for huggingface; null: `text`, or the only column of text")
    url: str | None = Field(
        None, description="https address that Tiny Shakespeare is downloaded from; null: the usual place"
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of the whole text; null: not checked")
    tokenizer: TokenizerConfig = TokenizerConfig()
    validation_fraction: float = Field(0.05, gt=0, lt=0.5, description="share of characters held out")
    test_fraction: float = Field(0.05, gt=0, lt=0.5)
    limit: int | None = Field(None, ge=1000, description="use only that many characters (for quick trials)")

    @model_validator(mode="after")
    def _has_a_place(self) -> TextData:
        if self.source == "file" and self.data_dir is None:
            raise ValueError("source file needs data_dir: the file, folder or gs:// prefix that holds the text")
        if self.source == "huggingface" and self.data_dir is None and self.dataset is None:
            raise ValueError("source huggingface needs dataset, a name, or data_dir: a saved data set or parquet files")
        return self


class TransformerConfig(Frozen):
    """The backbone that every model of text shares."""

    width: int = Field(192, ge=16, le=8192)
    depth: int = Field(4, ge=1, le=96)
    heads: int = Field(3, ge=1, le=128)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerConfig:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 2 x heads ({2 * self.heads})")
        return self


Block = Annotated[int, Field(ge=1, le=4096)]
Lanes = Annotated[int, Field(ge=1, le=256)]
Tilt = Annotated[float, Field(ge=0, le=1000)]


class ProcessConfig(Frozen):
    """Gaussian noise on embeddings; gamma = log(sigma^2 / alpha^2) of the variance-preserving process."""

    embedding: int = Field(64, ge=2, le=4096, description="dimensions of a token's embedding")
    gamma_min: float = Field(-1.0, ge=-20, le=20)
    gamma_max: float = Field(9.0, ge=-20, le=30)
    warp_bins: int = Field(64, ge=8, le=1024, description="bins of the loss histogram that the time warp comes from")
    warp_uniform: float = Field(0.2, ge=0.01, le=1, description="share of noise levels drawn uniformly in gamma")
    blocks: tuple[Block, ...] = Field(
        (8, 8, 32), min_length=1, max_length=16, description="tokens denoised together, after clean text before them"
    )
    lanes: tuple[Lanes, ...] = Field(
        (1,),
        min_length=1,
        max_length=16,
        description="parts of a block that are written side by side, of each of `blocks` or one for all; 1: the whole",
    )
    tilt: tuple[Tilt, Tilt] = Field(
        (1.0, 7.0),
        description="range of how far a lane's first slots run ahead of its last; 0: none, its length - 1: one by one",
    )
    known: float = Field(0.3, ge=0, le=1, description="share of blocks with clean tokens inside: infill")
    endpoints: float = Field(
        0.0, ge=0, le=1, description="share of batches whose tokens are each clean or lost: masks, and gaps for infill"
    )
    prefix_dropout: float = Field(0.1, ge=0, le=1, description="share of batches without the text before: guidance")
    self_conditioning: float = Field(0.25, ge=0, le=1, description="share of batches that see their own first guess")
    output_prior: bool = Field(True, description="add the exact evidence of a token's own noisy embedding")
    next_evidence: bool = Field(False, description="add what the next tokens say of a slot, those that are clean")
    autoregressive_weight: float = Field(0.5, ge=0, le=10, description="of the losses on the clean stream")

    @model_validator(mode="after")
    def _ordered(self) -> ProcessConfig:
        if self.gamma_min >= self.gamma_max:
            raise ValueError(f"gamma_min is {self.gamma_min}, gamma_max is {self.gamma_max}; it must be the smaller")
        if self.tilt[0] > self.tilt[1]:
            raise ValueError(f"tilt is {list(self.tilt)}; the first must not be the larger")
        if len(self.lanes) not in (1, len(self.blocks)):
            raise ValueError(
                f"lanes is {list(self.lanes)}; expected one for all, or one for each of {len(self.blocks)} blocks"
            )
        for block, lanes in self.shapes:
            if lanes > block:
                raise ValueError(f"lanes: found {lanes} of a block of {block}; expected {block} at most")
        return self

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Blocks and how many lanes each of them has."""
        lanes = self.lanes * len(self.blocks) if len(self.lanes) == 1 else self.lanes
        return tuple(zip(self.blocks, lanes, strict=True))


class TextModel(Frozen):
    """Backbone, context and noise process."""

    context: int = Field(128, ge=4, le=4096, description="tokens that are seen at once")
    transformer: TransformerConfig = TransformerConfig()
    process: ProcessConfig = ProcessConfig()

    @model_validator(mode="after")
    def _blocks_fill_context(self) -> TextModel:
        for block in self.process.blocks:
            if self.context % block:
                raise ValueError(f"process.blocks: {block} does not divide the context of {self.context} tokens")
        return self

    def block(self, asked: int | None) -> int:
        """Tokens denoised together: as many as are asked for; None: the first that was trained.

        Raises:
            UserError: more than are seen at once.
        """
        block = asked or self.process.blocks[0]
        if block > self.context:
            raise UserError(f"sample.block: found {block}; the model's context is {self.context} tokens")
        return block


Mode = Literal["diffusion", "autoregressive", "guided", "infill"]
Prompt = Annotated[str, Field(min_length=1, max_length=20_000)]


class TextSample(Frozen):
    """How samples are drawn."""

    count: int = Field(48, ge=1, le=1_000_000, description="samples of each mode; of prompts, samples of each")
    modes: tuple[Mode, ...] = Field(("diffusion", "autoregressive", "guided"), min_length=1)
    prompts: tuple[Prompt, ...] = Field((), max_length=1000, description=f"continued, or filled in where {GAP} stands")
    length: int | None = Field(None, ge=1, le=100_000, description="tokens; null: the model's context")
    gap: int = Field(8, ge=1, le=1000, description=f"tokens that {GAP} stands for")
    block: int | None = Field(None, ge=1, le=4096, description="tokens denoised together; null: the model's first")
    sampler: Literal["mixture", "ddpm", "ddim", "q"] = Field(
        "mixture", description="mixture: a step goes to a token drawn from its law; the others to the mean of all"
    )
    steps: int = Field(16, ge=1, le=10_000, description="network evaluations for each block")
    temperature: float = Field(1.0, ge=1e-3, le=10, description="of the denoiser's token probabilities")
    tilt: float | None = Field(None, ge=0, le=1000, description="null: the largest that was trained")
    guidance: float = Field(1.0, ge=0, le=50, description="1 is none; weight of the text before, as in CFG")
    fusion: Literal["bayes", "mix", "reweight", "verify"] = Field("verify", description="how guided samples are made")
    fusion_weight: float = Field(1.0, ge=0, le=50, description="alpha of mix, w of bayes, lambda of reweight")
    guided_count: int = Field(8, ge=1, le=1_000_000, description="samples of mode guided: the slowest one")
    candidates: int = Field(4, ge=1, le=1000, description="diffusion samples that reweight chooses from")
    seed: int = Field(0, ge=0, lt=2**63)
    batch_size: int = Field(48, ge=1, le=100_000)
    precision: Literal["fp32", "bf16"] = Field("fp32", description="number format of the network; laws stay fp32")


class TextDraw(TextSample):
    """How texts are drawn for somebody who waits: no record of a run keeps their prompts, which may read like a
    password."""

    kept_nowhere: ClassVar[frozenset[str]] = frozenset({"prompts"})


class TextEvaluate(Frozen):
    """How samples are compared with real text."""

    judge_order: int = Field(5, ge=1, le=12, description="characters an n-gram of the judge spans")
    temperatures: tuple[Annotated[float, Field(ge=1e-3, le=10)], ...] = Field(
        (0.7, 0.8, 0.9, 1.0), max_length=20, description="of the frontier; empty: not measured"
    )
    frontier_count: int = Field(16, ge=1, le=10_000, description="samples at each temperature")
    spans: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (8, 16, 32), max_length=8, description="characters of held-out text that fusion fills in"
    )
    span_count: int = Field(64, ge=1, le=100_000, description="held-out spans of each length")
    weights: tuple[Annotated[float, Field(ge=0, le=50)], ...] = Field(
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), description="alpha and w of the fusion curves"
    )
    drafts: int = Field(
        16, ge=1, le=10_000, description="autoregressive drafts of a span, of which the text after it picks one"
    )
    bound_windows: int = Field(64, ge=1, le=100_000, description="held-out contexts whose bits are measured")
    bound_draws: int = Field(8, ge=1, le=10_000, description="noise levels of each block: fewer steps are all measured")
    evaluations_per_token: tuple[Annotated[float, Field(gt=0, le=10_000)], ...] = Field(
        (0.5, 1, 2, 4), max_length=16, description="at which bits per character are measured"
    )
    seed: int = Field(0, ge=0)
