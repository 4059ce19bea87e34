"""Writes the pages of an office without a system: plain HTML, no script, nothing kept by the browser or passed on."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.clock import PARAGUAY, local_day
from gateway.links.service import Opened
from schemas.codes import code_list, label
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.geography import department, district
from schemas.text import _, printable

_CSS = """
body { font: 1.1rem/1.5 system-ui, sans-serif; color: #111; background: #fff; margin: 0; }
main { max-width: 40rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .5rem; border-bottom: 1px solid #ccc; }
th { font-weight: normal; color: #444; width: 36%; }
label { display: block; }
input, select, button { font: inherit; padding: .4rem; max-width: 100%; box-sizing: border-box; }
button { background: #0b4f6c; color: #fff; border: 0; padding: .6rem 1rem; }
summary { font-weight: bold; padding: .5rem 0; cursor: pointer; }
.note { border-left: 4px solid #b45309; background: #fef3c7; padding: .5rem .8rem; }
.quiet { color: #444; font-size: .95rem; }
"""
_STYLE = b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
#: What goes with every page: nothing but our own style, no address passed on, no copy kept (CSP level 3).
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE}'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    title: str
    type: str = "text"
    value: str = ""
    required: bool = False
    longest: int = 200
    choices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Form:
    act: str
    title: str
    fields: tuple[_Field, ...]


@dataclass(frozen=True, slots=True)
class _Shown:
    rows: list[tuple[str, str]]
    forms: list[_Form]
    passing: str
    message_id: UUID


def ask_pin(message: str | None = None) -> bytes:
    """Return the page that asks for the PIN; it says nothing of anybody."""
    return _page(_("Referencia a su servicio"), message=message, ask_pin=True)


def tell(title: str, message: str) -> bytes:
    """Return a page that says one thing."""
    return _page(title, message=message)


def show(opened: Opened, message_id: UUID, at: datetime, message: str | None = None) -> bytes:
    """Return the page with the referral and the forms to answer it; ``message_id`` makes one answer of each form."""
    forms = _forms(at)
    shown = _Shown(_rows(opened), [forms[act] for act in opened.acts], opened.passing, message_id)
    return _page(_("Referencia a su servicio"), message=message, shown=shown)


def _page(title: str, *, message: str | None = None, ask_pin: bool = False, shown: _Shown | None = None) -> bytes:
    written = _PAGES.get_template("office.html.j2").render(
        title=title, message=message, ask_pin=ask_pin, shown=shown, css=_CSS
    )
    return written.encode()


def _rows(opened: Opened) -> list[tuple[str, str]]:
    current, person = opened.release.current, opened.release.person or {}
    known = [
        (_("Servicio"), label("services", current.service)),
        (_("Institución del servicio"), label("institutions", current.recipient)),
        (_("Refiere"), label("institutions", current.requester)),
        (_("Motivo"), label("reasons", current.reason_code)),
        (_("Detalle"), opened.release.reason_text),
        (_("Responder hasta el"), "" if current.due_on is None else f"{current.due_on:%d/%m/%Y}"),
        (_("Nombres"), person.get("given_names")),
        (_("Apellidos"), person.get("surnames")),
        *((each["system"].upper(), each["value"]) for each in person.get("identifiers", ())),
        (_("Fecha de nacimiento"), person.get("birth_date")),
        (_("Sexo"), person.get("sex")),
        (_("Lugar"), _place(person)),
        (_("Este enlace sirve hasta el"), f"{opened.link.expires_at.astimezone(PARAGUAY):%d/%m/%Y %H:%M}"),
    ]
    # Marks that turn the direction of writing would show another text than the one that was sent.
    return [(name, printable(str(value))) for name, value in known if value]


def _place(person: dict[str, Any]) -> str:
    names = []
    for read, code in ((district, person.get("district")), (department, person.get("department"))):
        if code is None:
            continue
        try:
            names.append(read(code).name)
        except (InvalidIdentifier, UnknownCode):
            names.append(code)
    return ", ".join(names)


def _forms(at: datetime) -> dict[str, _Form]:
    today = local_day(at).isoformat()
    day = _Field("dia", _("Día en que ocurrió"), "date", today, required=True)
    why = _Field("detalle", _("Detalle"), longest=1000)
    return {
        "accept": _Form("accept", _("Aceptar"), (day,)),
        "schedule": _Form(
            "schedule",
            _("Dar una cita"),
            (
                _Field("cita", _("Día y hora de la cita"), "datetime-local", required=True),
                _Field("lugar", _("Lugar")),
            ),
        ),
        "outcome": _Form(
            "outcome",
            _("Informar el resultado"),
            (
                _Field("resultado", _("Resultado"), required=True, choices=_choices("outcomes")),
                _Field("motivo", _("Motivo, si no se prestó"), choices=_reasons("not_provided")),
                why,
                day,
                _Field("lugar", _("Lugar")),
                _Field("comprobante", _("Número de comprobante")),
            ),
        ),
        "decline": _Form(
            "decline",
            _("Rechazar"),
            (_Field("motivo", _("Motivo"), required=True, choices=_reasons("decline")), why, day),
        ),
    }


def _choices(codes: str) -> tuple[tuple[str, str], ...]:
    return tuple((code, label(codes, code)) for code in code_list(codes))


def _reasons(use: str) -> tuple[tuple[str, str], ...]:
    return tuple((code, label("reasons", code)) for code, spec in code_list("reasons").items() if use in spec["use"])
