"""Whether a message is what its schema says: strict JSON first, then JSON Schema draft 2020-12."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from schemas.errors import SchemaError, Violation
from schemas.text import _

if TYPE_CHECKING:
    from jsonschema import FormatChecker
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

_FOLDER = Path(__file__).parent / "messages"
MAX_DEPTH = 32
#: The rules of :func:`parse_json`: a body that breaks one of them is no JSON we read, whatever its schema.
UNREADABLE = frozenset({"utf-8", "depth", "json", "number", "duplicate-key", "nul", "surrogate"})
# A surrogate escape that is not one half of a pair (RFC 8259 clause 8.2 calls the outcome unpredictable).
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def parse_json(body: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Read JSON (RFC 8259) strictly: UTF-8, no repeated keys, no NaN or infinite number, no NUL, no lone surrogates,
    bounded depth.

    Raises :class:`SchemaError` with one violation; its text never repeats the content.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise _broken("utf-8", _("El cuerpo no está en UTF-8.")) from None
    if _deeper_than(text, max_depth):
        raise _broken("depth", _("El JSON está anidado más de {n} niveles.").format(n=max_depth))
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        where = _("línea {line}, columna {column}").format(line=error.lineno, column=error.colno)
        raise _broken("json", _("El cuerpo no es JSON válido ({where}).").format(where=where)) from None
    except SchemaError:
        raise
    except (RecursionError, ValueError):
        raise _broken("json", _("El cuerpo no es JSON válido.")) from None
    if "\\u" in text or "\x00" in text:
        _refuse_bad_text(value)
    return value


def validate(name: str, instance: Any) -> None:
    """Check a message against ``schemas/messages/<name>.schema.json``; raise :class:`SchemaError` saying what is wrong.

    The compiled validator decides; the explaining one (formats included) runs only for a refused message.
    """
    if _validator(name)(instance):
        return
    violations = [_explain(error) for error in explain(schema(name), instance)]
    raise SchemaError(violations or [Violation("", "schema", _("El mensaje no sigue su esquema."))])


def is_valid(name: str, instance: Any) -> bool:
    """Say whether a message follows its schema, without explaining."""
    return _validator(name)(instance)


def schema(name: str) -> dict[str, Any]:
    """Return the schema itself."""
    loaded = json.loads((_FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise TypeError(name)
    return loaded


def explain(document: dict[str, Any], instance: Any) -> list[ValidationError]:
    """Return everything by which an instance breaks a schema, formats included; for messages already refused.

    The library that explains takes a second to import, so a process that refuses nothing never does.
    """
    build, checker = _explainer()
    return list(build(document, format_checker=checker).iter_errors(instance))


@lru_cache(maxsize=64)
def _validator(name: str) -> Callable[[Any], bool]:
    return jsonschema_rs.Draft202012Validator(schema(name), validate_formats=True, formats=_FORMATS).is_valid


@lru_cache(maxsize=1)
def _explainer() -> tuple[Callable[..., Validator], FormatChecker]:
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def pattern(_validator: Any, expected: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
        # "$" is the end of the text (ECMA 262); Python's also stands before a last line feed.
        if isinstance(instance, str) and not re.search(re.sub(r"\$\Z", r"\\Z", expected), instance):
            yield ValidationError("the text does not match its pattern")

    def properties(validator: Any, members: dict[str, Any], instance: Any, _schema: Any) -> Iterator[ValidationError]:
        # The library does not say where a member is that is not allowed at all (its schema is false).
        for name, member in members.items() if isinstance(instance, dict) else ():
            if name in instance:
                schema = {"not": {}} if member is False else member
                yield from validator.descend(instance[name], schema, path=name, schema_path=name)

    checker = FormatChecker()
    for name, holds in _FORMATS.items():
        checker.checks(name)(lambda value, holds=holds: not isinstance(value, str) or holds(value))
    explaining = extend(Draft202012Validator, {"pattern": pattern, "properties": properties})  # type: ignore[no-untyped-call]
    return explaining, checker


# Both validators ask us about times, so that whatever they let through is one that Python can hold: no year 0, no
# second 60.
# With a day to spare for every offset.
_FIRST_INSTANT, _LAST_INSTANT = datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})\Z", re.IGNORECASE
)


def _is_date(text: str) -> bool:
    """Say whether a text is a full-date of RFC 3339."""
    return bool(_DATE.match(text)) and _holds(date.fromisoformat, text)


def _is_date_time(text: str) -> bool:
    """Say whether a text is a date-time of RFC 3339."""
    return bool(_DATE_TIME.match(text)) and _holds(read_instant, text)


def read_instant(text: str) -> datetime:
    """Read a date-time of RFC 3339, in capitals or not; raises :class:`ValueError` for one that no database keeps."""
    at = datetime.fromisoformat(text.upper())
    if not _FIRST_INSTANT <= at <= _LAST_INSTANT:
        raise ValueError("instant out of reach")
    return at


def _holds(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except (ValueError, OverflowError):
        return False
    return True


_FORMATS = {"date": _is_date, "date-time": _is_date_time}


def _explain(error: ValidationError) -> Violation:
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.absolute_path)
    rule = str(error.validator)
    expected: Any = error.validator_value
    texts = {
        "required": _("Falta un campo obligatorio."),
        "additionalProperties": _("Hay un campo que el esquema no conoce."),
        "unevaluatedProperties": _("Hay un campo que el esquema no conoce."),
        "type": _("El tipo no es el esperado: {expected}.").format(expected=expected),
        "enum": _("El valor no está en la lista permitida."),
        "const": _("El valor no es el esperado."),
        "format": _("El formato no es válido: se esperaba {expected}.").format(expected=_shape(expected)),
        "pattern": _("El texto no tiene la forma esperada."),
        "maxLength": _("El texto pasa de {expected} caracteres.").format(expected=expected),
        "minLength": _("El texto es demasiado corto."),
        "maxItems": _("La lista pasa de {expected} elementos.").format(expected=expected),
        "minItems": _("La lista tiene muy pocos elementos."),
        "uniqueItems": _("La lista repite elementos."),
        "not": _("Este campo no va en este mensaje."),
    }
    if rule == "required" and isinstance(error.instance, dict):
        # One error per missing member; only its text says which.
        pointer = f"{pointer}/{error.message.split(chr(39))[1]}"
    if rule == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
        extra = next((name for name in error.instance if name not in known), "")
        # A made-up name could itself be personal data, so only a plain one is repeated.
        pointer = f"{pointer}/{extra}" if re.fullmatch(r"[a-z_]{1,40}", extra) else pointer
    return Violation(pointer, rule, texts.get(rule, _("El mensaje no sigue su esquema.")))


def _shape(name: Any) -> str:
    return {"date": _("AAAA-MM-DD"), "date-time": _("AAAA-MM-DDThh:mm:ss con zona")}.get(str(name), str(name))


def _broken(rule: str, message: str) -> SchemaError:
    return SchemaError([Violation("", rule, message)])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _broken("duplicate-key", _("Un objeto JSON repite una clave."))
    return members


def _no_constant(_name: str) -> Any:
    raise _broken("number", _("NaN e Infinity no son números JSON."))


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        # Python reads 1e999 as Infinity, which nothing that writes JSON may write.
        raise _broken("number", _("El cuerpo no es JSON válido."))
    return value


def _refuse_bad_text(value: Any) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise _broken("nul", _("Un texto contiene el carácter NUL."))
        if _LONE_SURROGATE.search(value):
            raise _broken("surrogate", _("Un texto contiene medio par sustituto de Unicode."))
    elif isinstance(value, dict):
        for name, member in value.items():
            _refuse_bad_text(name)
            _refuse_bad_text(member)
    elif isinstance(value, list):
        for member in value:
            _refuse_bad_text(member)


def _deeper_than(text: str, limit: int) -> bool:
    if text.count("[") + text.count("{") <= limit:
        return False
    depth, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > limit:
                return True
        elif character in "]}":
            depth -= 1
    return False
