"""Decides what a producer's field becomes in our vocabulary, and ours in its: a table of fields, compiled once.

Each field is found by JMESPath, passed through named converters and, where it is a code, translated by a table. A value
that does not fit is a problem with its field and rule; nothing is guessed, shifted or dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from adapters.converters import ADMITS, CONVERTERS, DAYS, TYPED, Converter, Unfit
from schemas.text import _

Expression = Callable[[Any], Any]
_MISSING = object()
_NAME = r"[A-Za-z_][A-Za-z0-9_]*|\"[^\"\\]+\""
_ONE_MEMBER = re.compile(rf"({_NAME})\Z", re.ASCII)
_JOINED_MEMBERS = re.compile(rf"join\('([^'\\]*)', \[((?:{_NAME})(?:, ?(?:{_NAME}))*)\]\)\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Members:
    """Members of the document itself, joined by ``glue`` where there are several: most fields ask for no more."""

    names: tuple[str, ...]
    glue: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: where it comes from and what is done to it. ``const`` stands for itself, nothing else applies."""

    name: str
    source: Expression | None = None
    members: Members | None = None
    const: str | int | None = None
    steps: tuple[Converter, ...] = ()
    admits: type | None = None
    codes: Mapping[str, str] | None = None
    otherwise: Any = _MISSING
    required: bool = False
    default: str | int | bool | None = None

    def convert(self, found: Any) -> tuple[Any, str | None]:
        """Return what a value found becomes (``None``: absent) and its raw code where it was translated.

        Raises :class:`~adapters.converters.Unfit`.
        """
        if found is None:
            return self.default, None
        if not isinstance(found, str):
            if type(found) is not self.admits:
                raise Unfit("not a text")
            found = str(found).lower()
        value = found
        for step in self.steps:
            if not value:
                break
            value = step(value)
        if value == "":
            return self.default, None
        if self.codes is None:
            return value, None
        ours = self.codes.get(value, self.otherwise)
        if ours is _MISSING:
            raise Unfit("unknown code")
        return ours, found


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a table made of a document: the fields present, the raw code of each translated one, and the problems."""

    values: dict[str, Any]
    raw_codes: dict[str, str]
    problems: tuple[tuple[str, str], ...]


def compile_expression(text: str) -> Expression:
    """Compile JMESPath; raise ValueError where it is none."""
    try:
        search: Expression = jmespath.compile(text).search
    except JMESPathError:
        raise ValueError(_("no es una expresión JMESPath")) from None
    members = plain_members(text)
    if members is None or len(members.names) > 1:
        return search
    # Most fields are just this, and a look-up costs a tenth of JMESPath's walk.
    [name] = members.names
    return lambda document: document.get(name) if isinstance(document, dict) else None


def plain_members(text: str) -> Members | None:
    """Say which members of the document an expression asks for, where it asks for nothing else."""
    if (one := _ONE_MEMBER.match(text)) is not None:
        return Members((one[1].strip('"'),))
    if (several := _JOINED_MEMBERS.match(text)) is not None:
        return Members(tuple(name.strip('"') for name in re.findall(_NAME, several[2])), several[1])
    return None


def compile_field(name: str, spec: str | Mapping[str, Any]) -> Field:
    """Compile a field of a manifest (``schemas/manifest.schema.json``, ``$defs/field``); raise ValueError."""
    if isinstance(spec, str):
        return Field(name, source=compile_expression(spec), members=plain_members(spec))
    if "const" in spec:
        return Field(name, const=spec["const"])
    through: Sequence[str] = spec.get("through", ())
    unknown = [step for step in through if step not in CONVERTERS]
    if unknown:
        raise ValueError(_("convertidor desconocido: {name}").format(name=unknown[0]))
    typed = [step for step in through if step in TYPED]
    if typed and (len(typed) > 1 or typed[0] != through[-1] or "codes" in spec):
        raise ValueError(_("{name} debe ser el último paso, y sin códigos").format(name=typed[0]))
    if any(step == "not-future" and before not in DAYS for before, step in zip(("", *through), through, strict=False)):
        raise ValueError(_("not-future va después de una fecha"))
    return Field(
        name,
        source=compile_expression(spec["from"]),
        members=plain_members(spec["from"]),
        steps=tuple(CONVERTERS[step] for step in through if step != "text"),
        admits=next((ADMITS[step] for step in through if step in ADMITS), None),
        codes=spec.get("codes"),
        otherwise=spec.get("otherwise", _MISSING),
        required=spec.get("required", False),
        default=spec.get("default"),
    )


class FieldTable:
    """Fields read from one document."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self.fields = tuple(fields)
        self.names = tuple(field.name for field in self.fields)

    def read(self, document: Any) -> Mapped:
        """Read every field; a field that is absent or empty is left out, a required one then is a problem."""
        values: dict[str, Any] = {}
        raw: dict[str, str] = {}
        problems: list[tuple[str, str]] = []
        for field in self.fields:
            if field.source is None:
                values[field.name] = field.const
                continue
            try:
                value, code = field.convert(field.source(document))
            except Unfit as error:
                problems.append((field.name, str(error)))
                continue
            except JMESPathError:
                problems.append((field.name, "of another type than the contract's"))
                continue
            if code is not None:
                raw[field.name] = code
            if value is not None:
                values[field.name] = value
            elif field.required:
                problems.append((field.name, "missing"))
        return Mapped(values, raw, tuple(problems))
