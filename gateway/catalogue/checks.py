"""Decides whether a catalogue hangs together: every code that an entry names is there, ages and hours are in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

from gateway.errors import Mistake
from schemas import geography
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.text import _

_ENDS = {"latitude": 90.0, "longitude": 180.0}

Entries = Mapping[str, Mapping[str, Mapping[str, Any]]]


def mistakes(entries: Entries) -> list[Mistake]:
    """Return everything that is wrong with a whole catalogue: kind → code → document, each valid by its schema."""
    return [
        found
        for kind, check in _CHECKS.items()
        for code, document in entries[kind].items()
        for found in check(f"/{kind}/{code}", document, entries)
    ]


def _programme(at: str, document: Mapping[str, Any], entries: Entries) -> Iterator[Mistake]:
    yield from _known(f"{at}/institution", document["institution"], entries["institutions"], _institution_text())


def _requirement(at: str, document: Mapping[str, Any], entries: Entries) -> Iterator[Mistake]:
    if "issuer" in document:
        yield from _known(f"{at}/issuer", document["issuer"], entries["institutions"], _institution_text())


def _service(at: str, document: Mapping[str, Any], entries: Entries) -> Iterator[Mistake]:
    yield from _known(f"{at}/institution", document["institution"], entries["institutions"], _institution_text())
    if "programme" in document:
        text = _("El programa no existe en el catálogo.")
        yield from _known(f"{at}/programme", document["programme"], entries["programmes"], text)
    text = _("El requisito no existe en el catálogo.")
    yield from _all_known(f"{at}/requirements", document.get("requirements", ()), entries["requirements"], text)
    text = _("La categoría del ciclo de vida no existe.")
    yield from _all_known(f"{at}/categories", document["categories"], code_list("life-cycle"), text)
    if "requires" in document:
        text = _("La condición no existe.")
        yield from _known(f"{at}/requires", document["requires"], code_list("characteristics"), text)
    if document.get("from_age", 0) > document.get("to_age", 150):
        yield Mistake("ages-crossed", f"{at}/to_age", _("La edad máxima es menor que la mínima."))


def _location(at: str, document: Mapping[str, Any], entries: Entries) -> Iterator[Mistake]:
    yield from _known(f"{at}/institution", document["institution"], entries["institutions"], _institution_text())
    yield from _district(f"{at}/district", document["district"])
    yield from _openings(f"{at}/openings", document.get("openings", ()))
    for name, end in _ENDS.items():
        if abs(float(document.get(name, "0"))) > end:
            yield Mistake("coordinates", f"{at}/{name}", _("La coordenada está fuera del mundo."))
    given: set[str] = set()
    for number, offer in enumerate(document["offers"]):
        here = f"{at}/offers/{number}"
        yield from _known(f"{here}/service", offer["service"], entries["services"], _service_text())
        yield from _openings(f"{here}/openings", offer.get("openings", ()))
        for place, code in enumerate(offer.get("districts", ())):
            yield from _district(f"{here}/districts/{place}", code)
        if offer["service"] in given:
            yield Mistake("repeated", f"{here}/service", _("El servicio ya está en este lugar."))
        given.add(offer["service"])


def _package(at: str, document: Mapping[str, Any], entries: Entries) -> Iterator[Mistake]:
    text = _("La categoría del ciclo de vida no existe.")
    yield from _known(f"{at}/category", document["category"], code_list("life-cycle"), text)
    yield from _all_known(f"{at}/services", document["services"], entries["services"], _service_text())
    yield from _populations(at, document)
    if document["kind"] == "differential" and not document.get("populations"):
        text = _("Un paquete diferencial dice para qué poblaciones es.")
        yield Mistake("required", f"{at}/populations", text, tuple(code_list("populations")))


def _route(at: str, document: Mapping[str, Any], entries: Entries) -> Iterator[Mistake]:
    yield from _populations(at, document)
    steps: list[Mapping[str, Any]] = document["steps"]
    names = [step["id"] for step in steps]
    reached = {names[0]}
    for number, step in enumerate(steps):
        here, later = f"{at}/steps/{number}", names[number + 1 :]
        yield from _known(f"{here}/service", step["service"], entries["services"], _service_text())
        if step["id"] in names[:number]:
            yield Mistake("repeated", f"{here}/id", _("Dos pasos de la ruta tienen el mismo nombre."))
        elif step["id"] not in reached:
            yield Mistake("unreachable", f"{here}/id", _("Ningún paso anterior lleva a este."))
        if "next" not in step:
            reached.update(later[:1])
        for place, branch in enumerate(step.get("next", ())):
            if "to" in branch:
                text = _("Una rama lleva a un paso posterior de la misma ruta.")
                yield from _known(f"{here}/next/{place}/to", branch["to"], later, text)
                reached.add(branch["to"])
            if "after" in branch:
                text = _("El resultado no existe.")
                yield from _known(f"{here}/next/{place}/after", branch["after"], code_list("outcomes"), text)


def _populations(at: str, document: Mapping[str, Any]) -> Iterator[Mistake]:
    text = _("La población no existe.")
    yield from _all_known(f"{at}/populations", document.get("populations", ()), code_list("populations"), text)


def _openings(at: str, openings: Collection[Mapping[str, Any]]) -> Iterator[Mistake]:
    for number, opening in enumerate(openings):
        # Times of one form compare as text.
        if opening["opens"] >= opening["closes"]:
            yield Mistake("hours-crossed", f"{at}/{number}/closes", _("Cierra antes de abrir."))


def _district(at: str, code: str) -> Iterator[Mistake]:
    try:
        geography.district(code)
    except (InvalidIdentifier, UnknownCode):
        yield _foreign(at, code) or Mistake("unknown-district", at, _district_text(), _districts_like(code))


def _foreign(at: str, code: str) -> Mistake | None:
    """Say so where the code is one of the tax authority's list, and which one is meant."""
    try:
        meant = geography.translate_district(code, "sifen", "ine")
    except (InvalidIdentifier, UnknownCode):
        return None
    name = geography.district(meant).name
    text = _(
        "El código es de la lista de la autoridad tributaria; el de la oficina de estadística para {name} es otro."
    )
    return Mistake("tax-authority-code", at, text.format(name=name), (meant,))


@lru_cache(maxsize=64)
def _districts_like(code: str) -> tuple[str, ...]:
    departments = {each.ine for each in geography.departments()}
    meant = {code[:2]} & departments if len(code) == len("0000") else departments
    return tuple(each.ine for ine in sorted(meant or departments) for each in geography.districts(ine))


def _all_known(at: str, codes: Collection[str], known: Collection[str], text: str) -> Iterator[Mistake]:
    for number, code in enumerate(codes):
        yield from _known(f"{at}/{number}", code, known, text)


def _known(at: str, code: str, known: Collection[str], text: str) -> Iterator[Mistake]:
    if code not in known:
        yield Mistake("unknown-code", at, text, tuple(sorted(known)))


def _institution_text() -> str:
    return _("La institución no existe en el catálogo.")


def _service_text() -> str:
    return _("El servicio no existe en el catálogo o fue retirado.")


def _district_text() -> str:
    return _("El distrito no existe en la lista de la oficina de estadística.")


_CHECKS: dict[str, Callable[[str, Mapping[str, Any], Entries], Iterator[Mistake]]] = {
    "programmes": _programme,
    "requirements": _requirement,
    "services": _service,
    "locations": _location,
    "packages": _package,
    "routes": _route,
}
