"""YAML from outside: small, shallow, plain data, no key twice; a value is what its field's type says it is.

YAML alone takes 123, 1e3, no and 2024-01-01 for numbers, a truth and a day. Whether that is meant only the field knows,
so a scalar stays as it was written (`Written`) until `resolve` meets the schema.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from core.errors import UserError

MAX_BYTES = 65_536  # a configuration is a page of text; anything larger is a mistake or an attack
MAX_DEPTH = 20
_PLAIN = (bool, int, float, datetime.date)


class Written(str):
    """A scalar as it was written, without quotes; `value` is what YAML takes it for."""

    value: Any

    def __new__(cls, text: str, value: Any) -> Written:
        made = super().__new__(cls, text)
        made.value = value
        return made


class _Loader(yaml.SafeLoader):
    """Plain data only. YAML 1.1 reads 1:30:00 as a number in base 60, which nobody means and takes long to compute."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as in the class it comes from
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:int"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9_]{0,20}|0x[0-9a-fA-F]{1,16})$"), list("-+0123456789")
)


def parse(text: str, where: str) -> Any:
    """The value of a YAML text, with scalars as `Written`. Aliases are refused: a few bytes of them can stand for
    gigabytes.

    Raises:
        UserError: it is not such a text; `where` is named, and for a key that is there twice its line.
    """
    if len(text) > MAX_BYTES:
        raise UserError(f"{where}: larger than {MAX_BYTES} characters; a configuration is a page of text")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{where}: YAML aliases (*{event.anchor}) are not allowed")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise UserError(f"{where}: YAML tags ({tag[:40]}) are not allowed")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise UserError(f"{where}: nested deeper than {MAX_DEPTH} levels")
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(node, loader, where)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{where}: not valid YAML: {error}") from None


def _value(node: yaml.Node, loader: _Loader, where: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, loader, where) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return dict(_items(node, loader, where))
    assert isinstance(node, yaml.ScalarNode)
    if node.style is not None or node.tag == "tag:yaml.org,2002:str":  # quoted, or a text to YAML too
        return str(node.value)
    try:
        return Written(node.value, loader.construct_object(node))
    except (yaml.YAMLError, ValueError):  # 2024-02-30, =, <<
        return str(node.value)


def _items(node: yaml.MappingNode, loader: _Loader, where: str) -> Iterator[tuple[str, Any]]:
    lines: dict[str, int] = {}
    for key, item in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{where}: line {line}: a key must be a name, not a list or mapping")
        name = str(key.value)
        if name in lines:
            shown = name if len(name) <= 60 else name[:57] + "..."
            raise UserError(f"{where}: line {line}: key {shown!r} is there twice, first in line {lines[name]}")
        lines[name] = line
        yield name, _value(item, loader, where)


def plain(value: Any) -> Any:
    """`value` with every scalar as what YAML takes it for."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Written) else value


def resolve(kind: Any, value: Any) -> Any:
    """`value` with every scalar as its field in `kind`, a pydantic model or another type, says: text stays text.

    Where any value is allowed a scalar stays `Written`: a later schema decides.
    """
    return _resolve(tuple(_options(kind)), value)


def _resolve(options: tuple[Any, ...], value: Any) -> Any:
    if not options:  # a key that the schema does not know
        return plain(value)
    if Any in options:
        return value
    if isinstance(value, Written):
        return _scalar(options, value)
    if isinstance(value, Mapping):
        return {key: _resolve(_of_key(options, str(key)), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        inner = [part for one in options if get_origin(one) in (list, tuple) for part in get_args(one)]
        options_of = tuple(option for part in inner if part is not ... for option in _options(part))
        return [_resolve(options_of, item) for item in value]
    return str(value) if _is_no_number(options, value) else value


def _scalar(options: tuple[Any, ...], value: Written) -> Any:
    if any(get_origin(one) is Literal and str(value) in get_args(one) for one in options):
        return str(value)
    missing = value.value is None and (NoneType in options or not value)
    if _is_no_number(options, value.value):
        return str(value)
    if str not in options or missing:
        return value.value
    numbers = tuple(one for one in options if one in _PLAIN)
    return value.value if numbers and isinstance(value.value, numbers) else str(value)


def _is_no_number(options: tuple[Any, ...], value: Any) -> bool:
    """Whether a truth stands where numbers do: yes is no number, and pydantic would take it for 1."""
    return isinstance(value, bool) and bool not in options and (int in options or float in options)


def _of_key(options: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    kinds = []
    for one in options:
        if isinstance(one, type) and issubclass(one, BaseModel) and key in one.model_fields:
            kinds.append(one.model_fields[key].annotation)
        elif get_origin(one) in (dict, Mapping):
            kinds.append(get_args(one)[1])
    return tuple(option for kind in kinds for option in _options(kind))


def _options(kind: Any) -> Iterator[Any]:
    """The types that `kind` allows, unions and annotations taken apart."""
    if get_origin(kind) is Annotated:
        yield from _options(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from _options(one)
    else:
        yield kind
