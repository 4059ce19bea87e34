"""What every request that is decided must name: a purpose and a legal basis that exist."""

from __future__ import annotations

from gateway.errors import BadRequest
from schemas.codes import code_list


def require_codes(purpose: str, basis: str) -> None:
    """Raise BadRequest with the codes there are, unless purpose and basis are codes."""
    purposes, bases = code_list("purposes"), code_list("legal-bases")
    if purpose not in purposes:
        raise BadRequest("unknown-purpose", pointer="/purpose", allowed=purposes)
    if basis not in bases:
        raise BadRequest("unknown-basis", pointer="/basis", allowed=bases)
