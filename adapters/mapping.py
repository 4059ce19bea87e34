"""Decides what a producer's field becomes in our vocabulary, and ours in its: a table of fields, compiled once.

Each field is found by JMESPath, passed through named converters and, where it is a code, translated by a table. A value
that does not fit is a problem with its field and rule; nothing is guessed, shifted or dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from schemas.errors import InvalidIdentifier
from schemas.ids import parse_cedula, parse_uuid
from schemas.text import _

Expression = Callable[[Any], Any]
_MISSING = object()
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
_DMY_DATE = re.compile(r"(\d{2})/(\d{2})/(\d{4})\Z", re.ASCII)
# C0 except tab and line ends (white space, left to collapse-spaces), DEL and C1.
_CONTROL = dict.fromkeys([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0)])


class Unfit(ValueError):
    """A value does not fit its converter; the text is the rule it broke, never the value."""


def _date10(text: str) -> str:
    """Cut the date off a dateTime as it is written: a birth date is never shifted through a time zone."""
    day = text[:10]
    if not _ISO_DATE.match(day) or (len(text) > 10 and text[10] not in "T Z+-"):
        raise Unfit("not a date")
    return _real(day)


def _date_dmy(text: str) -> str:
    match = _DMY_DATE.match(text)
    if match is None:
        raise Unfit("not a dd/mm/yyyy date")
    return _real(f"{match[3]}-{match[2]}-{match[1]}")


def _to_dmy(text: str) -> str:
    day = _date10(text)
    return f"{day[8:]}/{day[5:7]}/{day[:4]}"


def _real(day: str) -> str:
    try:
        date.fromisoformat(day)
    except ValueError:
        raise Unfit("no such day in the calendar") from None
    return day


def _cedula(text: str) -> str:
    try:
        return parse_cedula(text)
    except InvalidIdentifier:
        raise Unfit("not a cédula") from None


def _uuid(text: str) -> str:
    try:
        return str(parse_uuid(text))
    except InvalidIdentifier:
        raise Unfit("not a UUID") from None


def _no_control(text: str) -> str:
    return text if text.isprintable() else text.translate(_CONTROL)


def _collapse_spaces(text: str) -> str:
    return " ".join(text.split())


def _same(text: str) -> str:
    return text


#: The converters a manifest may name; ``text`` says that a whole number may stand where a text belongs.
CONVERTERS: Mapping[str, Callable[[str], str]] = {
    "cedula": _cedula,
    "collapse-spaces": _collapse_spaces,
    "date-dmy": _date_dmy,
    "date10": _date10,
    "lower": str.lower,
    "no-control": _no_control,
    "strip": str.strip,
    "text": _same,
    "to-dmy": _to_dmy,
    "upper": str.upper,
    "uuid": _uuid,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: where it comes from and what is done to it. ``const`` stands for itself, nothing else applies."""

    name: str
    source: Expression | None = None
    const: str | int | None = None
    steps: tuple[Callable[[str], str], ...] = ()
    numbers: bool = False
    codes: Mapping[str, str] | None = None
    otherwise: Any = _MISSING
    required: bool = False
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a table made of a document: the fields present, the raw code of each translated one, and the problems."""

    values: dict[str, Any]
    raw_codes: dict[str, str]
    problems: tuple[tuple[str, str], ...]


def compile_expression(text: str) -> Expression:
    """Compile JMESPath; raise ValueError where it is none."""
    if _PLAIN_NAME.match(text):
        # Most fields are just this, and a look-up costs a tenth of JMESPath's walk.
        return lambda document: document.get(text) if isinstance(document, dict) else None
    try:
        return jmespath.compile(text).search
    except JMESPathError:
        raise ValueError(_("no es una expresión JMESPath")) from None


def compile_field(name: str, spec: str | Mapping[str, Any]) -> Field:
    """Compile a field of a manifest (``schemas/manifest.schema.json``, ``$defs/field``); raise ValueError."""
    if isinstance(spec, str):
        return Field(name, source=compile_expression(spec))
    if "const" in spec:
        return Field(name, const=spec["const"])
    through: Sequence[str] = spec.get("through", ())
    unknown = [step for step in through if step not in CONVERTERS]
    if unknown:
        raise ValueError(_("convertidor desconocido: {name}").format(name=unknown[0]))
    return Field(
        name,
        source=compile_expression(spec["from"]),
        steps=tuple(CONVERTERS[step] for step in through if step != "text"),
        numbers="text" in through,
        codes=spec.get("codes"),
        otherwise=spec.get("otherwise", _MISSING),
        required=spec.get("required", False),
        default=spec.get("default"),
    )


class FieldTable:
    """Fields read from one document."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self._fields = tuple(fields)
        self.names = tuple(field.name for field in self._fields)

    def read(self, document: Any) -> Mapped:
        """Read every field; a field that is absent or empty is left out, a required one then is a problem."""
        values: dict[str, Any] = {}
        raw: dict[str, str] = {}
        problems: list[tuple[str, str]] = []
        for field in self._fields:
            try:
                value = _read(field, document, raw)
            except Unfit as error:
                problems.append((field.name, str(error)))
                continue
            except JMESPathError:
                problems.append((field.name, "of another type than the contract's"))
                continue
            if value is not None:
                values[field.name] = value
            elif field.required:
                problems.append((field.name, "missing"))
        return Mapped(values, raw, tuple(problems))


def _read(field: Field, document: Any, raw: dict[str, str]) -> str | int | None:
    if field.source is None:
        return field.const
    found = field.source(document)
    if field.numbers and type(found) is int:
        found = str(found)
    if found is None:
        return field.default
    if not isinstance(found, str):
        raise Unfit("not a text")
    value = found
    for step in field.steps:
        if not value:
            break
        value = step(value)
    if not value:
        return field.default
    if field.codes is None:
        return value
    raw[field.name] = found
    ours = field.codes.get(value, field.otherwise)
    if ours is _MISSING:
        raise Unfit("unknown code")
    return None if ours is None else str(ours)
