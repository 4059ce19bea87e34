"""What may be done to one value on its way into our vocabulary or out of it: named converters, each with one rule.

A value that does not fit is refused by the rule it breaks; nothing is guessed, shifted or dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from schemas.errors import InvalidIdentifier
from schemas.ids import parse_cedula, parse_ruc, parse_uuid

Converter = Callable[[str], Any]

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
_DMY_DATE = re.compile(r"\d{2}/\d{2}/\d{4}\Z", re.ASCII)
_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:\d{2}))?\Z", re.ASCII)
_LOOSE_DATE = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?: \d{1,2}:\d{2}(?::\d{2})?)?\Z", re.ASCII)
_YMD_DATE = re.compile(r"(\d{4})(/?)(\d{2})\2(\d{2})\Z", re.ASCII)
_MONTH = re.compile(r"(?:([0-9]{4})-([0-9]{1,2})|([0-9]{1,2}|[A-Za-z]+)[/ -]([0-9]{4}))\Z")
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "enero", "febrero", "marzo", "abril", "mayo", "junio",
            "julio", "agosto", "septiembre setiembre", "octubre", "noviembre", "diciembre",
        ),
        start=1,
    )
    for name in names.split()
}  # fmt: skip
_is_plain_cedula = re.compile(r"[1-9][0-9]{4,7}\Z").match
_INTEGER = re.compile(r"-?\d{1,18}\Z", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,18}(?:\.\d{1,12})?\Z", re.ASCII)
_DECIMAL_COMMA = re.compile(r"(-?(?:\d{1,3}(?:\.\d{3})+|\d{1,18}))(?:,(\d{1,12}))?\Z", re.ASCII)
_THOUSAND_DOTS = re.compile(r"-?(?:\d{1,3}(?:\.\d{3})+|\d{1,18})\Z", re.ASCII)
_DIGITS = re.compile(r"\d+\Z", re.ASCII)
_EMAIL = re.compile(r"[^@\s,;<>\"]{1,64}@(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W\d_]{2,24}\Z")
_MOBILE = re.compile(r"(?:\+?595|0)?(9[6-9]\d{7})\Z", re.ASCII)
_PHONE_NOISE = str.maketrans("", "", " ()-./")
_NO_VALUE = frozenset({"-", "--", "n/a", "s/d", "null", "none", "sin dato", "sin datos", "no tiene", "no aplica"})
_YES_NO = {"si": True, "sí": True, "s": True, "no": False, "n": False}
# C0 except tab and line ends (white space, left to collapse-spaces), DEL and C1.
_CONTROL = dict.fromkeys([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0)])
_BLANKS = ("  ", "| ", " |")
_PARAGUAY = ZoneInfo("America/Asuncion")


class Unfit(ValueError):
    """A value does not fit its converter; the text is the rule it broke, never the value."""


def _date10(text: str) -> str:
    """Cut the date off a dateTime as it is written: a birth date is never shifted through a time zone."""
    day = text[:10]
    if not _ISO_DATE.match(day) or (len(text) > 10 and text[10] not in "T Z+-"):
        raise Unfit("not a date")
    return _real(day)


def _date_time(text: str) -> str:
    """Pass a dateTime that says its offset (RFC 3339, the seconds may lack), or a day, as it is written."""
    try:
        if _DATE_TIME.match(text):
            datetime.fromisoformat(text)
            return text
    except ValueError:
        pass
    raise Unfit("not a date and time with its offset")


def _date_dmy(text: str) -> str:
    if len(text) == 10 and text[2] == text[5] == "/":
        day = f"{text[6:]}-{text[3:5]}-{text[:2]}"
        try:
            date.fromisoformat(day)
        except ValueError:
            if _DMY_DATE.match(text):
                raise Unfit("no such day in the calendar") from None
        else:
            return day
    raise Unfit("not a dd/mm/yyyy date")


def _date_dmy_loose(text: str) -> str:
    """Day before month, one digit or two, by ``/``, ``-`` or ``.``; a time of day behind it is cut off."""
    match = _LOOSE_DATE.match(text)
    if match is None:
        raise Unfit("not a d/m/yyyy date")
    return _real(f"{match[4]}-{match[3]:0>2}-{match[1]:0>2}")


def _date_ymd(text: str) -> str:
    match = _YMD_DATE.match(text)
    if match is None:
        raise Unfit("not a yyyymmdd date")
    return _real(f"{match[1]}-{match[3]}-{match[4]}")


def _to_dmy(text: str) -> str:
    day = _date10(text)
    return f"{day[8:]}/{day[5:7]}/{day[:4]}"


def _real(day: str) -> str:
    try:
        date.fromisoformat(day)
    except ValueError:
        raise Unfit("no such day in the calendar") from None
    return day


def _not_future(text: str) -> str:
    """Pass a day (ISO) or month (yyyy-mm) that has begun in Paraguay."""
    # What was past when this was loaded is past now, and to ask the clock costs more than all the rest.
    if text > _LOADED and text > _today()[: len(text)]:
        raise Unfit("in the future")
    return text


def _today() -> str:
    return datetime.now(_PARAGUAY).date().isoformat()


def _month_year(text: str) -> str:
    """Read ``JUNIO/2017``, ``06/2017`` or ``2017-6`` as ``2017-06``."""
    match = _MONTH.match(text)
    if match is None:
        raise Unfit("not a month and year")
    written = match[2] or match[3]
    number = int(written) if written.isdigit() else _MONTHS.get(written.lower(), 0)
    if not 1 <= number <= 12:
        raise Unfit("not a month and year")
    return f"{match[1] or match[4]}-{number:02}"


def _cedula(text: str) -> str:
    # Most are written as they are kept, and a look costs half of a reading.
    if _is_plain_cedula(text):
        return text
    try:
        return parse_cedula(text)
    except InvalidIdentifier:
        raise Unfit("not a cédula") from None


def _ruc(text: str) -> str:
    try:
        return parse_ruc(text)
    except InvalidIdentifier:
        raise Unfit("not a RUC with its check digit") from None


def _uuid(text: str) -> str:
    try:
        return str(parse_uuid(text))
    except InvalidIdentifier:
        raise Unfit("not a UUID") from None


def _integer(text: str) -> int:
    if not _INTEGER.match(text):
        raise Unfit("not a whole number")
    return int(text)


def _decimal(text: str) -> str:
    if not _DECIMAL.match(text):
        raise Unfit("not a number with a decimal point")
    return text


def _decimal_comma(text: str) -> str:
    """Read ``1.234,56`` or ``1234,56`` as ``1234.56``."""
    match = _DECIMAL_COMMA.match(text)
    if match is None:
        raise Unfit("not a number with a decimal comma")
    whole = match[1].replace(".", "")
    return whole if match[2] is None else f"{whole}.{match[2]}"


def _thousand_dots(text: str) -> str:
    """Read ``1.234.567`` as ``1234567``; a number without any dot stays as it is."""
    if not _THOUSAND_DOTS.match(text):
        raise Unfit("not a whole number with dots for thousands")
    return text.replace(".", "")


def _boolean(text: str) -> bool:
    found = {"true": True, "false": False}.get(text.lower())
    if found is None:
        raise Unfit("neither true nor false")
    return found


def _boolean_si_no(text: str) -> bool:
    found = _YES_NO.get(text.lower())
    if found is None:
        raise Unfit("neither sí nor no")
    return found


def _pad(width: int) -> Callable[[str], str]:
    """Make a converter that gives a code back the leading zeros a spreadsheet took."""

    def pad(text: str) -> str:
        if not _DIGITS.match(text) or len(text) > width:
            raise Unfit("not a code of that many digits")
        return text.zfill(width)

    return pad


def _strip_zeros(text: str) -> str:
    """Take leading zeros off; a value of zeros only keeps one."""
    return text.lstrip("0") or "0"


def _email(text: str) -> str:
    if len(text) > 254 or not _EMAIL.match(text):
        raise Unfit("not an e-mail address")
    return text


def _mobile(text: str) -> str:
    """Read a mobile number of Paraguay, however written, as ``5959`` and eight digits."""
    match = _MOBILE.match(text) or _MOBILE.match(text.translate(_PHONE_NOISE))
    if match is None:
        raise Unfit("not a mobile number of Paraguay")
    return f"595{match[1]}"


def _no_value(text: str) -> str:
    """Take what clerks write for nothing (``-``, ``S/D``, ``No tiene``) as nothing."""
    return "" if text.strip().lower() in _NO_VALUE else text


def _before_comma(text: str) -> str:
    return text.partition(",")[0]


def _after_comma(text: str) -> str:
    return text.partition(",")[2]


def _no_control(text: str) -> str:
    return text if text.isprintable() else text.translate(_CONTROL)


def _collapse_spaces(text: str) -> str:
    return " ".join(text.split())


def _same(text: str) -> str:
    return text


def _collapse_spaces_column(column: Sequence[str]) -> Sequence[str]:
    # Printable text has no white space but blanks, and most columns none too many.
    joined = "|".join(column)
    if joined.isprintable() and not (set(joined[:1] + joined[-1:]) & {" "} or any(map(joined.__contains__, _BLANKS))):
        return column
    return list(map(" ".join, map(str.split, column)))


def _no_control_column(column: Sequence[str]) -> Sequence[str]:
    return column if all(map(str.isprintable, column)) else list(map(_no_control, column))


_LOADED = _today()

#: The converters a manifest may name, each from text to text unless it is among :data:`TYPED`.
CONVERTERS: Mapping[str, Converter] = {
    "after-comma": _after_comma,
    "before-comma": _before_comma,
    "boolean": _boolean,
    "boolean-si-no": _boolean_si_no,
    "cedula": _cedula,
    "collapse-spaces": _collapse_spaces,
    "date-dmy": _date_dmy,
    "date-dmy-loose": _date_dmy_loose,
    "date-time": _date_time,
    "date-ymd": _date_ymd,
    "date10": _date10,
    "decimal": _decimal,
    "decimal-comma": _decimal_comma,
    "email": _email,
    "integer": _integer,
    "lower": str.lower,
    "mobile": _mobile,
    "month-year": _month_year,
    "no-control": _no_control,
    "no-value": _no_value,
    "not-future": _not_future,
    "pad2": _pad(2),
    "pad3": _pad(3),
    "pad4": _pad(4),
    "pad7": _pad(7),
    "ruc": _ruc,
    "strip": str.strip,
    "strip-zeros": _strip_zeros,
    "text": _same,
    "thousand-dots": _thousand_dots,
    "to-dmy": _to_dmy,
    "upper": str.upper,
    "uuid": _uuid,
}

#: Converters whose result is no text; nothing can follow them.
TYPED = frozenset({"boolean", "boolean-si-no", "integer"})
#: Converters whose result is a day or month as ISO 8601 has it; ``not-future`` stands right behind one of them.
DAYS = frozenset({"date-dmy", "date-dmy-loose", "date-ymd", "date10", "month-year"})
#: What a field admits beside text because it goes through the converter named; it is read as its text in JSON.
ADMITS: Mapping[str, type] = {"text": int, "integer": int, "boolean": bool}

#: The converters that refuse nothing, over a whole column at once.
WHOLE_COLUMN: Mapping[Converter, Callable[[Sequence[str]], Sequence[str]]] = {
    str.strip: lambda column: list(map(str.strip, column)),
    str.upper: lambda column: list(map(str.upper, column)),
    str.lower: lambda column: list(map(str.lower, column)),
    _no_control: _no_control_column,
    _collapse_spaces: _collapse_spaces_column,
}
