"""Says to the people who fill in forms, in their language, which rule a form or report of theirs breaks."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import Mistake
from schemas.text import _


def mistake(rule: str, pointer: str, allowed: Iterable[str] = ()) -> Mistake:
    """Return what is wrong at a place of a message, with what to do about it."""
    return Mistake(rule, pointer, _words()[rule], tuple(allowed))


def _words() -> dict[str, str]:
    return {
        "not-a-date": _("Escriba un día que exista, como 2026-11-20."),
        "in-the-future": _("El día todavía no llegó."),
        "born-later": _("La persona nació después del día en que se la vio."),
        "impossible-age": _("La persona tendría más de 130 años."),
        "died-before-birth": _("La persona murió antes de nacer."),
        "unknown-department": _("Use el código de la oficina de estadística (INE), de dos cifras."),
        "unknown-district": _("Use el código de la oficina de estadística (INE), de cuatro cifras."),
        "tax-authority-code": _(
            "Es un código de la lista de la autoridad tributaria, que numera de otro modo; use el de la oficina de "
            "estadística (INE)."
        ),
        "district-of-another-department": _("El distrito no es del departamento."),
        "no-members": _("Un hogar tiene al menos un integrante."),
        "bad-identifier": _("La cédula va sin puntos ni espacios; el número local, con sus diez cifras."),
        "unknown-person": _("Nadie tiene este número; quien no tiene cédula va sin identificador y recibe uno."),
        "twice-on-the-form": _("La misma persona está dos veces en la ficha."),
        "missing-name": _("La persona no está registrada: hacen falta nombres y apellidos."),
        "member-elsewhere": _("La persona integra otro hogar; si se mudó a este, indíquelo con «moved»."),
        "unknown-household": _("No hay un hogar con este número."),
        "unknown-code": _("Use uno de los códigos permitidos."),
        "unknown-service": _("Use el código de un servicio del catálogo que se dé a esta unidad."),
        "foreign-service": _("Una institución informa solo sobre sus propios servicios."),
        "twice-in-the-list": _("Está dos veces en la lista."),
        # Of files alone.
        "neither-yes-nor-no": _("Escriba código=si o código=no, separados por espacios."),
        "rows-disagree": _("No dice lo mismo que la primera fila de la ficha."),
        "rows-apart": _("Las filas de una ficha van juntas; esta ficha ya había terminado."),
        "one-row-alone": _("La ficha de una comunidad tiene una sola fila."),
        "form-left-out": _("Otra fila de esta ficha está mal: la ficha no se toma entera."),
        "missing": _("Falta el valor."),
    }
