"""What is refused of subscriptions, each with its code and what to do, in Spanish."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import BadRequest, Conflict
from schemas.text import _


def unknown_code(pointer: str, allowed: Iterable[str]) -> BadRequest:
    """Build the refusal of a code that is not in its list."""
    return BadRequest("unknown-code", pointer=pointer, allowed=sorted(allowed))


def bad_url() -> BadRequest:
    """Build the refusal of an address that may not be called."""
    detail = _("Use una dirección https sin usuario ni fragmento.")
    return BadRequest("bad-url", pointer="/url", detail=detail)


def url_missing() -> BadRequest:
    """Build the refusal of a webhook without an address, or of an address with what is pulled."""
    detail = _("La dirección va con el canal webhook, y solo con él.")
    return BadRequest("subscription-url", pointer="/url", detail=detail)


def too_many(most: int) -> Conflict:
    """Build the refusal of one subscription more than an institution may have."""
    detail = _("Una institución tiene hasta {most} suscripciones: elimine una.").format(most=most)
    return Conflict("too-many-subscriptions", detail=detail)


def other_channel() -> Conflict:
    """Build the refusal of something that the subscription's channel does not have."""
    detail = _("Se recogen avisos de una suscripción «pull»; la clave y la dirección son de una «webhook».")
    return Conflict("other-channel", detail=detail)
