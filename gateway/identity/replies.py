"""What the authorization server answers, a refusal above all: RFC 6749 section 5.2, the details in the log alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidScopeError, UnsupportedGrantTypeError

from gateway.identity.authentication import Authenticated, Refused
from gateway.identity.errors import ProofError, TokenError, TooMany
from schemas.text import _


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer; ``refusal`` says why for the log, and is None for a success."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    refusal: TokenError | None = None


class BadProof(OAuth2Error):  # type: ignore[misc]
    """The DPoP proof of a token request does not hold (RFC 9449 section 5)."""

    error = "invalid_dpop_proof"

    def __init__(self, cause: ProofError) -> None:
        super().__init__()
        self.cause = cause


def refuse(error: OAuth2Error, proven: Authenticated | None = None) -> Answer:
    """Answer as RFC 6749 section 5.2 has it; details go to the log, and to a caller that proved who it is."""
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    if isinstance(error, Refused):
        # RFC 9110 section 15.5.2 wants a challenge with every 401; no scheme is registered for assertions.
        headers["WWW-Authenticate"] = f'{error.scheme} realm="siis"'
        description = credential_text(error.cause)
        return Answer(401, {"error": error.error, "error_description": description}, headers, error.cause)
    cause = error.cause if isinstance(error, BadProof) else TokenError(str(error.error).replace("_", "-"))
    if proven is not None:
        cause.client_id, cause.pilot = proven.client.id, proven.pilot
    return Answer(400, {"error": error.error, "error_description": _error_text(error)}, headers, cause)


def too_many(error: TooMany) -> Answer:
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache", "Retry-After": str(error.retry_after_s)}
    description = _("Demasiados pedidos; vuelva a intentarlo cuando diga Retry-After.")
    return Answer(429, {"error": "temporarily_unavailable", "error_description": description}, headers, error)


def _error_text(error: OAuth2Error) -> str:
    # RFC 6749 allows ASCII only here, so the Spanish is chosen without accents.
    if isinstance(error, UnsupportedGrantTypeError):
        return _("El campo grant_type debe ser client_credentials.")
    if isinstance(error, InvalidScopeError):
        return _("El alcance (scope) pedido supera el registrado para el cliente.")
    if isinstance(error, InvalidGrantError):
        return _("El token pertenece a otro cliente.")
    if isinstance(error, BadProof):
        return _("La prueba DPoP no vale: firme una nueva para este pedido y revise el reloj.")
    return _("Se espera un formulario x-www-form-urlencoded, una sola forma de autenticarse y campos sin repetir.")


def credential_text(cause: TokenError) -> str:
    if cause.client_id is None:
        return _("No se pudo autenticar al cliente.")
    texts = {
        "client-disabled": _("No se pudo autenticar al cliente."),
        "client-validity": _("El cliente no vale en esta fecha."),
        "network": _("El cliente no puede venir de esta red."),
        "certificate": _("El certificado ya no vale."),
        "certificate-forged": _("La cabecera del certificado no viene de nuestro proxy."),
        "client-mismatch": _("iss, sub y client_id deben nombrar al mismo cliente."),
        "audience": _("El destinatario (aud) debe ser solo este servidor."),
        "expired": _("El aserto ha vencido (exp)."),
        "early": _("El aserto viene del futuro (iat o nbf); revise el reloj."),
        "too-long": _("El aserto vale demasiado tiempo (exp); el tope es de 300 segundos."),
        "replayed": _("El aserto ya fue usado (jti)."),
    }
    return texts.get(cause.reason, _("Faltan datos en el aserto (exp, jti)."))
