"""Tables of settings to frozen records, checked word by word."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from llava_next_video.errors import ConfigError

Section = TypeVar("Section")


def read_section(
    kind: type[Section], table: Mapping[str, object], *, prefix: str = "", kept: tuple[type, ...] = ()
) -> Section:
    """The dataclass that a table spells, tables in it included.

    Values of the types in `kept` are taken as they are.

    Raises:
        ConfigError: A name that is not known, a value of the wrong type, or a name that is missing.
    """
    hints = get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(cast(Any, kind))]
    for key in table:
        if key not in names:
            raise ConfigError(unknown(f"{prefix}{key}", [f"{prefix}{name}" for name in names]))
    values = {key: _value(value, hints[key], f"{prefix}{key}", kept) for key, value in table.items()}
    missing = [
        item.name
        for item in dataclasses.fields(cast(Any, kind))
        if item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
        and item.name not in values
    ]
    if missing:
        raise ConfigError(f"the recipe has no {prefix}{missing[0]!r}; add it")
    return kind(**values)


def unknown(name: str, known: Sequence[str]) -> str:
    """The sentence about a setting that is not known; tables before the last dot are taken as right.

    >>> unknown("lr_rate", ["lr", "rates", "warmup"])
    "unknown setting 'lr_rate'; did you mean 'lr'? known: lr, rates, warmup"
    """
    given = name.rpartition(".")[2]
    last = {other.rpartition(".")[2]: other for other in known}
    begins = [other for other in last if given.startswith(other) or other.startswith(given)]
    near = begins or difflib.get_close_matches(given, last, n=1)
    hint = f"did you mean {last[near[0]]!r}? " if near else ""
    return f"unknown setting {name!r}; {hint}known: {', '.join(known)}"


def _value(value: object, hint: Any, name: str, kept: tuple[type, ...]) -> Any:
    """The value as its field has it."""
    if hint in kept:
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is {value!r}; expected a table [{name}]")
        return read_section(cast(type[object], hint), value, prefix=f"{name}.", kept=kept)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _value(value, inner, name, kept)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_value(item, arguments[0], name, kept) for item in items)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is {value!r}; expected a table [{name}]")
        if get_origin(arguments[0]) is Literal:
            for key in value:
                if key not in get_args(arguments[0]):
                    raise ConfigError(
                        unknown(f"{name}.{key}", [f"{name}.{part}" for part in get_args(arguments[0])])
                    )
        return {key: _value(item, arguments[1], f"{name}.{key}", kept) for key, item in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name} is {value!r}; expected {hint.__name__}")
    return value


def place_value(table: dict[str, Any], name: str, value: object, *, replace: bool) -> None:
    """Put a value under a dotted name, making the tables on the way; keep what is there unless `replace`.

    >>> table = {"learning": {"lr": 1.0}}
    >>> place_value(table, "learning.lr", 2.0, replace=True)
    >>> table
    {'learning': {'lr': 2.0}}
    """
    *path, last = name.split(".")
    here = table
    for key in path:
        inner = here.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"cannot set {name}: {key} is no table")
        here = inner
    if replace or last not in here:
        here[last] = value


def toml_value(text: str) -> object:
    """A value as TOML reads it; bare words are text, and `none` is no value.

    >>> toml_value("1e-4"), toml_value("fps"), toml_value("none")
    (0.0001, 'fps', None)
    """
    if text == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
