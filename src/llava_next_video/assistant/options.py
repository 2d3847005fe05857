"""Generation settings by their names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields
from numbers import Integral, Real

from llava_next_video.engine import SamplingOptions
from llava_next_video.errors import SamplingError


def options_from(sampling: Mapping[str, object]) -> SamplingOptions:
    """The settings of an answer; `stop` may be one string or several.

    >>> options_from({"temperature": 0.5, "stop": "END"}).stop
    ('END',)

    Raises:
        SamplingError: An unknown name (with the nearest known one), a value of another kind or out of range.
    """
    kinds = {option.name: str(option.type) for option in fields(SamplingOptions)}
    wanted = dict(sampling)
    for name, value in sampling.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SamplingError(f"unknown setting {name!r}; {hint}known: {', '.join(kinds)}")
        expected, fits = _EXPECTED[kinds[name]]
        if not fits(value):
            raise SamplingError(f"{name} is {value!r}; expected {expected}")
    stop = sampling.get("stop") or ()
    ids = sampling.get("stop_token_ids") or ()
    assert isinstance(stop, str | list | tuple)
    assert isinstance(ids, list | tuple)
    wanted |= {"stop": (stop,) if isinstance(stop, str) else tuple(stop), "stop_token_ids": tuple(ids)}
    return SamplingOptions(**wanted)  # type: ignore[arg-type]


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _are_ids(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_whole, value))


def _are_biases(value: object) -> bool:
    return isinstance(value, Mapping) and all(_is_whole(k) and _is_number(v) for k, v in value.items())


# By how `SamplingOptions` declares a setting: what to ask a user for, and whether a value is that.
_EXPECTED: dict[str, tuple[str, Callable[[object], bool]]] = {
    "int": ("a whole number", _is_whole),
    "int | None": ("a whole number, or None", lambda value: value is None or _is_whole(value)),
    "float": ("a number", _is_number),
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "tuple[str, ...]": (
        "a string or a list of strings",
        lambda value: value is None or isinstance(value, str) or _are_texts(value),
    ),
    "tuple[int, ...]": ("a list of token ids", lambda value: value is None or _are_ids(value)),
    "Mapping[int, float]": ("numbers by token id", _are_biases),
    "Guide | None": (
        "a function from ids to the ids that may follow",
        lambda value: value is None or callable(value),
    ),
}
