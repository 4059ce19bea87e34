"""What is refused of requests of persons and of breaches, each with its code and what to do, in Spanish."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import BadRequest, Conflict
from schemas.text import _


def unknown_code(pointer: str, allowed: Iterable[str]) -> BadRequest:
    """Build the refusal of a code that is not in its list."""
    return BadRequest("unknown-code", pointer=pointer, allowed=sorted(allowed))


def purpose_with_opposition() -> BadRequest:
    """Build the refusal of an opposition without purpose, or of a purpose with another right."""
    detail = _("La finalidad va con una oposición, y solo con ella.")
    return BadRequest("rights-purpose", pointer="/purpose", detail=detail)


def no_subject() -> BadRequest:
    """Build the refusal of a request about nobody."""
    detail = _("Indique de quién son los datos.")
    return BadRequest("rights-subject", pointer="/subject", detail=detail)


def no_reason(field: str) -> BadRequest:
    """Build the refusal of an answer that is no plain yes and does not say why."""
    detail = _("Esta respuesta necesita la norma en que se apoya y el motivo.")
    return BadRequest("rights-reason", pointer=f"/{field}", detail=detail)


def delivery() -> BadRequest:
    """Build the refusal of an answer whose delivery is missing, or has no place in it."""
    detail = _("Al conceder acceso o portabilidad indique referencia y SHA-256 de lo entregado, y solo entonces.")
    return BadRequest("rights-delivery", pointer="/delivered", detail=detail)


def restriction_end() -> BadRequest:
    """Build the refusal of a restriction without an end that lies ahead, or of an end without restriction."""
    detail = _("Un bloqueo necesita el día en que vence, posterior a hoy; otra respuesta no lo lleva.")
    return BadRequest("rights-until", pointer="/until", detail=detail)


def rights_out_of_order() -> Conflict:
    """Build the refusal of a step that the state of a request does not allow."""
    return Conflict("rights-out-of-order", detail=_("El estado del pedido no permite este paso"))


def unresolved() -> Conflict:
    """Build the refusal of what needs to know who the person is."""
    return Conflict("rights-unresolved", detail=_("Todavía no se sabe quién es la persona que pide"))


def breach_times(pointer: str) -> BadRequest:
    """Build the refusal of times of a breach that cannot be."""
    detail = _("El comienzo no es posterior al conocimiento, ni el fin anterior al comienzo, y nada está en el futuro.")
    return BadRequest("breach-times", pointer=pointer, detail=detail)


def breach_out_of_order() -> Conflict:
    """Build the refusal of a step that the state of a breach does not allow."""
    detail = _(
        "Primero se extrae la lista, luego se avisa a la Agencia y a las personas, una vez, y al final se cierra"
    )
    return Conflict("breach-out-of-order", detail=detail)
