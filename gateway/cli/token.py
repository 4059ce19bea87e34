"""``siis client token``: asks for an access token as a client system does, with its private key."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import httpx
import typer
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from adapters.http import client_for
from gateway.clock import utc_now
from gateway.identity.assertions import client_assertion, dpop_proof
from gateway.identity.authentication import ASSERTION_TYPE, GRANT
from gateway.identity.models import Issuer
from gateway.settings import load_settings
from schemas.text import _


async def request_token(
    client: httpx.AsyncClient, issuer: Issuer, client_id: str, private_key: bytes, *, dpop: bool = False
) -> str:
    """Return an access token for a client (RFC 7523 section 2.2); raises httpx.HTTPStatusError when refused.

    With ``dpop`` the token is bound to the client's key: each use needs a proof signed with it (RFC 9449).
    """
    key, now = ECKey.import_key(private_key), utc_now()
    assertion = client_assertion(key, client_id=client_id, issuer=issuer, now=now)
    headers = {"DPoP": dpop_proof(key, method="POST", url=issuer.token_endpoint, now=now)} if dpop else {}
    form = {"grant_type": GRANT, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    answer = await client.post(issuer.token_endpoint, data=form, headers=headers)
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def token(
    client_id: Annotated[str, typer.Argument(metavar="ID", help=_("Identificador del cliente."))],
    key: Annotated[Path, typer.Option(help=_("Clave privada EC P-256 en PEM."))],
    url: Annotated[str | None, typer.Option(help=_("Dirección de la pasarela; por omisión SIIS_ISSUER."))] = None,
    dpop: Annotated[bool, typer.Option("--dpop", help=_("Atar el token a la clave (DPoP, RFC 9449)."))] = False,
) -> None:
    """Print a fresh access token."""
    issuer = Issuer(url or load_settings().issuer)
    try:
        private = key.read_bytes()
    except OSError:
        typer.echo(_("No se puede leer el archivo {path}.").format(path=key), err=True)
        raise typer.Exit(2) from None
    try:
        typer.echo(asyncio.run(_request(issuer, client_id, private, dpop)))
    except (JoseError, ValueError):
        typer.echo(_("{path}: no es una clave privada EC P-256 en PEM.").format(path=key), err=True)
        raise typer.Exit(2) from None
    except httpx.HTTPStatusError as error:
        text = _("La pasarela no dio el token ({status}): revise el identificador y la clave.")
        typer.echo(text.format(status=error.response.status_code), err=True)
        raise typer.Exit(1) from None
    except httpx.HTTPError:
        typer.echo(_("La pasarela no responde en {url}.").format(url=issuer.url), err=True)
        raise typer.Exit(1) from None


async def _request(issuer: Issuer, client_id: str, private: bytes, dpop: bool) -> str:
    async with client_for(5.0) as client:
        return await request_token(client, issuer, client_id, private, dpop=dpop)
