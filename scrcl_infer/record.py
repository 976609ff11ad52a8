"""Frozen dataclasses that turn into JSON data and back, refusing what they do not know."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from scrcl_infer.errors import BundleSchemaError

_ADVICE = "The bundle was written by another version of scrcl: upgrade with `pip install -U scrcl`."


@dataclass(frozen=True)
class Record:
    """A frozen dataclass that turns into JSON data and back, refusing keys and types it does not know."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data: dicts, lists, strings, numbers, booleans and None."""
        plain: dict[str, Any] = _plain(self)
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from JSON data.

        Raises
        ------
        BundleSchemaError
            A key is missing or unknown, or a value is of another type; the text names it.
        """
        hints = typing.get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - set(fields))
        required = [
            n
            for n, f in fields.items()
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        missing = sorted(set(required) - set(data))
        if unknown or missing:
            msg = f"{cls.__name__}: unknown keys {unknown}, missing keys {missing}. {_ADVICE}"
            raise BundleSchemaError(msg)
        return cls(**{name: _typed(hints[name], value, f"{cls.__name__}.{name}") for name, value in data.items()})


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON data is of any type
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _typed(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - JSON data is of any type
    """Turn JSON data into what the annotation asks for; `where` names it in errors."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _typed(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        return tuple(_typed(args[0], item, where) for item in _expect(list | tuple, value, where))
    if origin is dict:
        return {key: _typed(args[1], item, f"{where}[{key!r}]") for key, item in _expect(Mapping, value, where).items()}
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(_expect(Mapping, value, where))
    return float(_expect(int | float, value, where)) if hint is float else _expect(hint, value, where)


def _expect(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - JSON data is of any type
    # bool is an int to Python, but not to JSON
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        msg = f"{where}: is {value!r:.60}, expected {getattr(kind, '__name__', kind)}. {_ADVICE}"
        raise BundleSchemaError(msg)
    return value
