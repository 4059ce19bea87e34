"""What ``siis adapter list`` shows and ``siis adapter try`` asks: apart, because they need the whole gateway."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from adapters.models import Health
from consent.models import Caller
from gateway import embedded, errors
from gateway.cli.screen import cell, json_line, screen
from gateway.commands import receipt_json
from gateway.database import Database, application_url
from gateway.exchange import DisclosureRequest
from gateway.producers.service import describe, last_seen, open_adapters
from gateway.runtime import open_runtime
from gateway.settings import Settings, load_settings
from schemas.codes import code_list
from schemas.text import _, printable


def show(as_json: bool) -> None:
    """Show the adapters and how each was last seen."""
    told = asyncio.run(_listed())
    if as_json:
        typer.echo(json.dumps(told))
        return
    table = Table(_("Nombre"), _("Institución"), _("Tipo"), _("Datos"), _("Servicios"), _("Estado"))
    for item in told:
        held = [*item["datasets"], *(name for name in item["registers"] if name not in item["datasets"])]
        table.add_row(
            item["name"],
            item["institution"],
            item["kind"],
            " ".join(held),
            " ".join(item["services"]),
            _state(item),
        )
    screen().print(table)


async def _listed() -> list[dict[str, Any]]:
    settings = load_settings()
    adapters = open_adapters(settings)
    try:
        return describe(adapters, await _seen(settings))
    finally:
        await adapters.close()


async def _seen(settings: Settings) -> dict[str, Health]:
    """Return what running processes saw; nothing where no database runs: a list is asked for before there is one."""
    if settings.embedded and embedded.status(settings.data_dir) is None:
        return {}
    database = Database(application_url(settings), pool_size=1)
    try:
        async with database.connection() as connection:
            return await last_seen(connection)
    except SQLAlchemyError:
        typer.echo(_("La base de datos no responde: no se sabe cómo están."), err=True)
        return {}
    finally:
        await database.close()


def _state(item: dict[str, Any]) -> Text:
    health = item["health"]
    if not item["connected"]:
        return cell(_("sin conectar"))
    if health["ok"] is None:
        return cell(_("sin consultas"))
    since = health["since"][:16].replace("T", " ")
    if health["ok"]:
        return cell(_("responde desde {since} UTC").format(since=since))
    return cell(_("falla desde {since} UTC: {reason}").format(since=since, reason=health["reason"]))


def ask(name: str, dataset: str, subject: str, institution: str, purpose: str, basis: str, as_json: bool) -> None:
    """Ask one adapter for a dataset about one person; ends with 1 when nothing is released, 2 for a wrong question."""
    declared = code_list("datasets").get(dataset)
    if declared is None:
        typer.echo(_("El conjunto de datos no existe; los hay: {names}").format(names=_names()), err=True)
        raise typer.Exit(2)
    asked = DisclosureRequest(
        system="cedula",
        identifier=subject,
        dataset=dataset,
        fields=tuple(declared["fields"]),
        purpose=purpose,
        basis=basis,
        agreement=None,
        case=None,
        correlation=None,
    )
    try:
        answer = asyncio.run(_ask(name, institution, asked))
    except errors.BadRequest as error:
        typer.echo(_("El pedido no es válido: {code} ({field})").format(code=error.code, field=error.pointer), err=True)
        raise typer.Exit(2) from None
    except errors.Refusal as error:
        reasons = ", ".join(error.reasons) if isinstance(error, errors.Denied) else error.code
        typer.echo(_("No se entregó nada: {reasons}").format(reasons=reasons), err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json_line(answer))
        return
    for field, value in answer["facts"].items():
        typer.echo(printable(f"{declared['fields'][field]['es']}: {value}"))
    if answer["withheld"]:
        typer.echo(_("No se entregan: {fields}").format(fields=", ".join(answer["withheld"])))
    typer.echo(_("Fuente: {source}. Recibo: {receipt}").format(source=answer["source"], receipt=answer["receipt"]))


async def _ask(name: str, institution: str, asked: DisclosureRequest) -> dict[str, Any]:
    async with open_runtime(load_settings()) as runtime:
        caller = Caller(
            client_id="siis-cli", institution=institution, user=f"uid {os.getuid()}", roles=frozenset({"operator"})
        )
        released = await runtime.exchange.disclose(caller, asked, adapter=runtime.adapters.named(name))
        return {
            "facts": released.facts,
            "withheld": list(released.withheld),
            "source": released.outcome.provenance.adapter,
            "at": released.outcome.provenance.at.isoformat(),
            "receipt": receipt_json(released.receipt)["entry_id"],
        }


def _names() -> str:
    return ", ".join(name for name, declared in code_list("datasets").items() if not declared.get("internal"))
