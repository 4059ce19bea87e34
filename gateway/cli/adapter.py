"""``siis adapter``: the connected producers, and a trial question that goes through the exchange like any other."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Annotated, Any

import typer
from rich.table import Table

from adapters.models import Adapter
from adapters.registry import SHIPPED, load_adapters
from consent.models import Caller
from gateway import errors
from gateway.cli.screen import json_line, printable, screen
from gateway.exchange import DisclosureRequest
from gateway.referrals.service import receipt_json
from gateway.runtime import open_runtime
from gateway.settings import load_settings
from schemas.codes import code_list
from schemas.text import _

app = typer.Typer(help=_("Los sistemas de las instituciones."), no_args_is_help=True)


@app.command("list", help=_("Mostrar los adaptadores."))
def list_(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show the adapters, what each serves and whether it is connected."""
    settings = load_settings()
    loaded = load_adapters([SHIPPED], settings.connections_file, settings.producer_secrets_dir)
    asyncio.run(loaded.close())
    if as_json:
        typer.echo(json.dumps([_told(adapter) for adapter in loaded]))
        return
    table = Table(_("Nombre"), _("Institución"), _("Tipo"), _("Datos"), _("Servicios"), _("Conectado"))
    for adapter in loaded:
        table.add_row(
            adapter.name,
            adapter.institution,
            adapter.kind,
            " ".join(sorted(adapter.datasets)),
            " ".join(sorted(adapter.services)),
            _("sí") if adapter.connected else _("no"),
        )
    screen().print(table)


def _told(adapter: Adapter) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "institution": adapter.institution,
        "kind": adapter.kind,
        "datasets": sorted(adapter.datasets),
        "services": sorted(adapter.services),
        "polls": adapter.polls,
        "deduplicates": adapter.deduplicates,
        "connected": adapter.connected,
    }


@app.command("try", help=_("Hacer una consulta de prueba: decide, registra y pregunta como cualquier otra."))
def try_(
    name: Annotated[str, typer.Argument(metavar="NAME", help=_("Nombre del adaptador."))],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help=_("Conjunto de datos."))],
    subject: Annotated[str, typer.Option(help=_("Cédula de la persona."))],
    institution: Annotated[str, typer.Option(help=_("Institución que pregunta."))] = "MDS",
    purpose: Annotated[str, typer.Option(help=_("Finalidad."))] = "service-access-determination",
    basis: Annotated[str, typer.Option(help=_("Base legal."))] = "official-authority",
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Ask one adapter for a dataset about one person; exit 1 when nothing is released."""
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
