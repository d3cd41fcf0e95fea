"""What a request may ask for, by modality, and the order that it becomes."""

from __future__ import annotations

from secrets import randbelow
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from core.config import canonical_json
from core.errors import UserError
from core.text.config import GAP, around_gap
from serving.card import SECTIONS, ModelCard
from serving.options import Options
from serving.orders import Order

Seed = Annotated[int, Field(ge=0, lt=2**63, description="Left out: another one each time; the answer names it")]


class _Ask(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    count: int = Field(1, ge=1, le=10_000, description="Samples")
    seed: Seed | None = None
    steps: int | None = Field(None, ge=1, le=10_000, description="Of the sampler; left out: as measured")
    guidance: float | None = Field(None, ge=0, le=50, description="1 is none; left out: as measured")
    deadline: float | None = Field(None, gt=0, le=3600, description="Seconds; at most the service's own")

    @model_validator(mode="before")
    @classmethod
    def _says_no_truths(cls, values: Any) -> Any:
        """JSON's true is no number, and pydantic would take it for 1."""
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool):
                raise ValueError(f"{key}: found {str(value).lower()}, which is neither a number nor a text")
        return values


def _name_or_number(value: Any) -> Any:
    """Of a class; one sentence where pydantic has one for each kind."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | int):
        return value
    raise ValueError("expected a class's name or number")


class ImageAsk(_Ask):
    """Images of a class."""

    label: Annotated[str | int | None, BeforeValidator(_name_or_number)] = Field(
        None, alias="class", description="A class's name or number; -1: without; left out: all classes in turn"
    )
    format: Literal["png", "array"] = Field("png", description="PNG in base64, or numbers [H, W] or [H, W, 3]")


class TextAsk(_Ask):
    """Texts: new ones, continued ones, or with a gap filled in."""

    prompt: str = Field("", max_length=20_000, description=f"Continued, or filled in at {GAP}")
    temperature: float | None = Field(None, ge=1e-3, le=10)
    length: int | None = Field(None, ge=1, le=100_000, description="New tokens; left out: the model's context")
    gap: int | None = Field(None, ge=1, le=1000, description=f"Tokens that {GAP} is filled with")
    block: int | None = Field(None, ge=1, le=4096, description="Tokens denoised together; left out: as measured")


Ask = ImageAsk | TextAsk
ASKS: dict[str, type[ImageAsk] | type[TextAsk]] = {"images": ImageAsk, "text": TextAsk}


def order_of(ask: Ask, card: ModelCard, options: Options) -> Order:
    """The order that `ask` is for the model of `card`.

    Raises:
        UserError: it asks for more than is allowed, or for what the model cannot do.
    """
    if ask.count > options.max_count:
        raise UserError(f"count: found {ask.count}; allowed: 1 to {options.max_count}")
    most = max(options.max_steps, card.steps)
    if ask.steps is not None and ask.steps > most:
        raise UserError(f"steps: found {ask.steps}; allowed: 1 to {most}")
    seed = ask.seed if ask.seed is not None else randbelow(2**31)
    rows: list[dict[str, Any]] = [{"seed": seed, "index": index} for index in range(ask.count)]
    wishes: dict[str, Any] = {"steps": ask.steps, "guidance": ask.guidance}
    if isinstance(ask, ImageAsk):
        section = _section(card, wishes)
        for row in rows:
            row["label"] = _label(ask.label, row["index"], card)
        return Order(section, rows, canonical_json(section), ask.deadline)
    if ask.length is not None and ask.length > options.max_length:
        raise UserError(f"length: found {ask.length}; allowed: 1 to {options.max_length}")
    wishes |= {"temperature": ask.temperature, "length": ask.length, "gap": ask.gap, "block": ask.block}
    section = _section(card, wishes)
    assert card.tokenizer is not None
    sides = around_gap(ask.prompt) if GAP in ask.prompt else (ask.prompt,)
    tokens = [len(card.tokenizer.encode(side)) for side in sides]
    written = [{**row, "prompt": ask.prompt} for row in rows]
    return Order(section, written, canonical_json([section, tokens]), ask.deadline)


def _section(card: ModelCard, wishes: dict[str, Any]) -> dict[str, Any]:
    asked = {key: value for key, value in wishes.items() if value is not None}
    return SECTIONS[card.modality]({**card.manner, **asked})


def _label(asked: str | int | None, index: int, card: ModelCard) -> int:
    """The number of a sample's class; -1 for none."""
    if asked is None:
        return index % len(card.classes) if card.classes else -1
    if isinstance(asked, str) and asked in card.classes:
        return card.classes.index(asked)
    if isinstance(asked, int) and -1 <= asked < len(card.classes):
        return asked
    if not card.classes:
        raise UserError(f"class: found {asked!r}; the model has none: leave it out")
    names = ", ".join(card.classes[:20]) + (", ..." if len(card.classes) > 20 else "")
    raise UserError(f"class: found {asked!r}; allowed: {names}; or a number from -1 to {len(card.classes) - 1}")
