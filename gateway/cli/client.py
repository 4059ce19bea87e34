"""``siis client``: registers client systems and their credentials; each change and its audit entry commit together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cli.registrar import (
    carry_out,
    certificate_from,
    day_from,
    fail,
    grace_from,
    key_from,
    networks_from,
    read_clients,
)
from gateway.cli.screen import screen
from gateway.cli.token import token
from gateway.identity import service
from gateway.identity.credentials import new_secret, secret_hash
from gateway.identity.models import Client
from schemas.ids import uuid7
from schemas.text import _

app = typer.Typer(help=_("Sistemas clientes y sus credenciales."), no_args_is_help=True, add_completion=False)
app.command("token", help=_("Pedir un token como lo hace un sistema cliente."))(token)
certificates = typer.Typer(help=_("Certificados TLS de un cliente."), no_args_is_help=True)
app.add_typer(certificates, name="certificate")
secrets = typer.Typer(help=_("El secreto de un cliente piloto."), no_args_is_help=True)
app.add_typer(secrets, name="secret")

# What every institution's system does; whatever governs, audits or breaks the glass is given by name only.
_DEFAULT_SCOPES = frozenset(
    {"disclosures.create", "referrals.create", "referrals.read", "referrals.reply", "status.read", "producers.read"}
)

Id = Annotated[str, typer.Argument(metavar="ID", help=_("Identificador del cliente."))]
KeyFile = Annotated[Path, typer.Option("--public-key", help=_("Clave pública EC P-256: PEM o JWK."))]
Since = Annotated[str | None, typer.Option("--valid-from", help=_("Primer día en que vale, por ejemplo 2027-01-01."))]
Until = Annotated[str | None, typer.Option("--valid-until", help=_("Último día en que vale, por ejemplo 2027-12-31."))]


@app.command(help=_("Registrar un sistema cliente."))
def add(
    name: Annotated[str, typer.Argument(help=_("Nombre del sistema."))],
    institution: Annotated[str, typer.Option(help=_("Código de la institución, por ejemplo MDS."))],
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help=_("Clave pública EC P-256: PEM o JWK."))
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help=_("Certificado TLS del cliente: PEM o DER."))] = None,
    pilot_secret: Annotated[
        bool, typer.Option("--pilot-secret", help=_("Crear un secreto; el cliente queda marcado como piloto."))
    ] = False,
    scope: Annotated[list[str] | None, typer.Option(help=_("Alcance permitido; se puede repetir."))] = None,
    client_id: Annotated[str | None, typer.Option("--id", help=_("Identificador; si falta, se crea uno."))] = None,
    assurance: Annotated[int, typer.Option(help=_("Nivel máximo (1 a 3) con que responde por sus operadores."))] = 1,
    network: Annotated[
        list[str] | None, typer.Option(help=_("Red desde la que puede venir (CIDR); se puede repetir."))
    ] = None,
    valid_from: Since = None,
    valid_until: Until = None,
) -> None:
    """Register a client system."""
    key = None if public_key is None else key_from(public_key)
    shown = None if certificate is None else certificate_from(certificate)
    secret = new_secret() if pilot_secret else None
    networks = networks_from(network or [])
    start, end = day_from(valid_from), day_from(valid_until, end=True)
    new_id = client_id or str(uuid7())
    scopes = frozenset(scope) if scope else _DEFAULT_SCOPES

    async def change(connection: AsyncConnection, now: datetime) -> service.Detail:
        return await service.add_client(
            connection,
            client_id=new_id,
            name=name,
            institution=institution,
            scopes=scopes,
            assurance=assurance,
            key=key,
            certificate=shown,
            secret_sha256=None if secret is None else secret_hash(secret),
            networks=networks,
            valid_from=start,
            valid_to=end,
            now=now,
        )

    issuer = carry_out("client.added", change)
    typer.echo(_("Cliente registrado: {id}").format(id=new_id))
    if key is not None:
        typer.echo(_("  clave (kid): {kid}").format(kid=key.kid))
    if shown is not None:
        typer.echo(_("  certificado (x5t#S256): {thumbprint}").format(thumbprint=shown.thumbprint))
    typer.echo(_("  alcances: {scopes}").format(scopes=" ".join(sorted(scopes))))
    typer.echo(_("  pide sus tokens en: {url}").format(url=issuer.token_endpoint))
    if secret is not None:
        _tell_secret(secret)


@app.command(help=_("Cambiar la clave de un cliente."))
def rotate(
    client_id: Id,
    public_key: KeyFile,
    grace: Annotated[
        str, typer.Option(help=_("Cuánto sirve aún la clave anterior: 30m, 24h, 7d; 0h la corta."))
    ] = "24h",
) -> None:
    """Give a client a new key."""
    key = key_from(public_key)
    period = grace_from(grace)

    async def change(connection: AsyncConnection, now: datetime) -> service.Detail:
        return await service.rotate_key(connection, client_id=client_id, key=key, grace=period, now=now)

    carry_out("client.key_rotated", change)
    typer.echo(_("Clave nueva (kid): {kid}; la anterior sirve {grace} más.").format(kid=key.kid, grace=grace))


@app.command(help=_("Dar de baja un cliente: sus tokens dejan de servir en el acto."))
def disable(client_id: Id) -> None:
    """Disable a client; its tokens stop at once."""

    async def change(connection: AsyncConnection, now: datetime) -> service.Detail:
        return await service.disable_client(connection, client_id=client_id, now=now)

    carry_out("client.disabled", change)
    typer.echo(_("Cliente dado de baja: {id}").format(id=client_id))


@app.command(help=_("Decir desde qué redes puede venir un cliente; o --everywhere, desde todas."))
def networks(
    client_id: Id,
    network: Annotated[list[str] | None, typer.Argument(metavar="[CIDR]...")] = None,
    everywhere: Annotated[bool, typer.Option("--everywhere", help=_("Quitar toda restricción."))] = False,
) -> None:
    """Say from where a client may come."""
    allowed = networks_from(network or [])
    if bool(allowed) == everywhere:
        fail(_("Diga las redes, o --everywhere para quitar toda restricción."), 2)

    async def change(connection: AsyncConnection, _now: datetime) -> service.Detail:
        return await service.change_networks(connection, client_id=client_id, networks=allowed)

    carry_out("client.networks_changed", change)
    texts = " ".join(str(each) for each in allowed) or _("todas")
    typer.echo(_("Redes de {id}: {networks}").format(id=client_id, networks=texts))


@app.command(help=_("Decir desde y hasta qué día vale un cliente; sin fecha, sin límite."))
def validity(client_id: Id, valid_from: Since = None, valid_until: Until = None) -> None:
    """Say when a client counts."""
    start, end = day_from(valid_from), day_from(valid_until, end=True)

    async def change(connection: AsyncConnection, _now: datetime) -> service.Detail:
        return await service.change_validity(connection, client_id=client_id, valid_from=start, valid_to=end)

    carry_out("client.validity_changed", change)
    typer.echo(
        _("Vigencia de {id}: {start} a {end}").format(id=client_id, start=valid_from or "…", end=valid_until or "…")
    )


@certificates.command("add", help=_("Registrar otro certificado de un cliente."))
def add_certificate(
    client_id: Id, certificate: Annotated[Path, typer.Argument(help=_("Certificado TLS: PEM o DER."))]
) -> None:
    """Register a further certificate."""
    shown = certificate_from(certificate)

    async def change(connection: AsyncConnection, _now: datetime) -> service.Detail:
        return await service.add_certificate(connection, client_id=client_id, certificate=shown)

    carry_out("client.certificate_added", change)
    text = _("Certificado (x5t#S256): {thumbprint}; vence el {end}.")
    typer.echo(text.format(thumbprint=shown.thumbprint, end=shown.not_after.date()))


# One thumbprint in 64 begins with a hyphen.
@certificates.command(
    "remove",
    help=_("Quitar un certificado: sus tokens dejan de servir en el acto."),
    context_settings={"ignore_unknown_options": True},
)
def remove_certificate(
    client_id: Id, thumbprint: Annotated[str, typer.Argument(help=_("Huella x5t#S256, como la muestra «show»."))]
) -> None:
    """Take a certificate away."""

    async def change(connection: AsyncConnection, now: datetime) -> service.Detail:
        return await service.remove_certificate(connection, client_id=client_id, thumbprint=thumbprint, now=now)

    carry_out("client.certificate_removed", change)
    typer.echo(_("Certificado quitado: {thumbprint}").format(thumbprint=thumbprint))


@secrets.command("renew", help=_("Crear otro secreto; el anterior deja de servir en el acto."))
def renew_secret(client_id: Id) -> None:
    """Make another secret for a pilot."""
    secret = new_secret()

    async def change(connection: AsyncConnection, _now: datetime) -> service.Detail:
        return await service.change_secret(connection, client_id=client_id, secret_sha256=secret_hash(secret))

    carry_out("client.secret_renewed", change)
    _tell_secret(secret)


@secrets.command("remove", help=_("Quitar el secreto: el cliente deja de ser un piloto."))
def remove_secret(client_id: Id) -> None:
    """End a pilot."""

    async def change(connection: AsyncConnection, _now: datetime) -> service.Detail:
        return await service.change_secret(connection, client_id=client_id, secret_sha256=None)

    carry_out("client.secret_removed", change)
    typer.echo(_("El cliente {id} ya no es un piloto.").format(id=client_id))


@app.command("list", help=_("Mostrar los clientes."))
def list_(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show the clients."""
    clients, now = read_clients(), datetime.now(UTC)
    if as_json:
        typer.echo(orjson.dumps([_as_json(client, now) for client in clients]).decode())
        return
    headings = (_("Identificador"), _("Nombre"), _("Institución"), _("Estado"), _("Alcances"), _("Credenciales"))
    table = Table(*headings)
    for client in clients:
        table.add_row(
            client.id,
            client.name,
            client.institution,
            _state(client, now),
            " ".join(sorted(client.scopes)),
            " ".join(_credentials(client, now)),
        )
    screen().print(table)


@app.command(help=_("Mostrar un cliente con todo lo que se sabe de él."))
def show(client_id: Id, as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show one client."""
    now = datetime.now(UTC)
    client = next((each for each in read_clients() if each.id == client_id), None)
    if client is None:
        fail(_("No hay ningún cliente con ese identificador."), 1)
    if as_json:
        typer.echo(orjson.dumps(_as_json(client, now)).decode())
        return
    table = Table(show_header=False)
    table.add_row(_("Identificador"), client.id)
    table.add_row(_("Nombre"), client.name)
    table.add_row(_("Institución"), client.institution)
    table.add_row(_("Estado"), _state(client, now))
    table.add_row(_("Alcances"), " ".join(sorted(client.scopes)))
    table.add_row(_("Nivel"), str(client.assurance))
    table.add_row(_("Vigencia"), f"{client.valid_from or '…'} – {client.valid_to or '…'}")
    table.add_row(_("Redes"), " ".join(str(network) for network in client.networks) or _("todas"))
    for key in client.keys:
        table.add_row(_("Clave"), f"{key.kid} {key.not_after or ''} {_usable(key.usable(now))}")
    for known in client.certificates:
        table.add_row(
            _("Certificado"), f"{known.thumbprint} {known.subject} {known.not_after} {_usable(known.usable(now))}"
        )
    if client.pilot:
        table.add_row(_("Secreto"), _("piloto"))
    screen().print(table)


def _tell_secret(secret: str) -> None:
    typer.echo(_("  secreto: {secret}").format(secret=secret))
    typer.echo(_("  Se muestra esta única vez. Es para un piloto: lo que se haga con él queda marcado así."))


def _state(client: Client, now: datetime) -> str:
    if not client.active:
        return _("de baja")
    state = _("activo") if client.valid(now) else _("fuera de vigencia")
    return state + ", " + _("piloto") if client.pilot else state


def _credentials(client: Client, now: datetime) -> list[str]:
    keys = [key.kid for key in client.usable_keys(now)]
    return keys + [f"x5t:{known.thumbprint}" for known in client.certificates if known.usable(now)]


def _usable(usable: bool) -> str:
    return _("en uso") if usable else _("fuera de uso")


def _as_json(client: Client, now: datetime) -> dict[str, Any]:
    return {
        "id": client.id,
        "name": client.name,
        "institution": client.institution,
        "active": client.active,
        "scopes": sorted(client.scopes),
        "assurance": client.assurance,
        "created_at": client.created_at,
        "disabled_at": client.disabled_at,
        "valid_from": client.valid_from,
        "valid_to": client.valid_to,
        "networks": [str(network) for network in client.networks],
        "pilot": client.pilot,
        "keys": [{"kid": key.kid, "not_after": key.not_after, "usable": key.usable(now)} for key in client.keys],
        "certificates": [
            {
                "x5t#S256": known.thumbprint,
                "subject": known.subject,
                "not_before": known.not_before,
                "not_after": known.not_after,
                "removed_at": known.removed_at,
                "usable": known.usable(now),
            }
            for known in client.certificates
        ],
    }
