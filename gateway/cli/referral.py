"""``siis referral``: follow one referral, and take referrals that come as FHIR message files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from consent.models import Caller
from gateway import evidence
from gateway.cli.context import open_context
from gateway.cli.screen import json_line
from gateway.clock import utc_now
from gateway.referrals import store
from gateway.referrals.models import Referral, ReferralEvent
from gateway.runtime import open_runtime
from gateway.settings import load_settings
from gateway.standards.fhir.service import FhirIntake, FhirRefused
from schemas.codes import label
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _, printable

app = typer.Typer(help=_("Referencias y contrarreferencias."), no_args_is_help=True, add_completion=False)


@app.command(help=_("Mostrar todo lo que pasó con una referencia."))
def trace(
    referral_id: Annotated[str, typer.Argument(metavar="ID", help=_("Número de la referencia."))],
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Show a referral with its events and the log entry of each."""
    try:
        parsed = parse_uuid(referral_id)
    except InvalidIdentifier:
        typer.echo(_("El número de una referencia es un UUID."), err=True)
        raise typer.Exit(2) from None
    found = asyncio.run(_trace(parsed))
    if found is None:
        typer.echo(_("No hay una referencia con ese número."), err=True)
        raise typer.Exit(1)
    current, happened = found
    if as_json:
        typer.echo(json_line({**_referral(current), "events": [_event(item) for item in happened]}))
        return
    typer.echo(
        _("Referencia {id}: {service}, de {requester} a {recipient}, estado {state}, entrega {delivery}").format(
            id=current.id,
            service=current.service,
            requester=current.requester,
            recipient=current.recipient,
            state=current.state,
            delivery=current.delivery,
        )
    )
    for item in happened:
        moved = "" if item.state_after == item.state_before else f": {item.state_before} → {item.state_after}"
        moment = item.at.isoformat(timespec="seconds").removesuffix("+00:00")
        typer.echo(f"{item.number:>3} {moment}Z  {_label(item)} ({item.actor}){moved}")
        if item.facts:
            typer.echo("      " + "  ".join(f"{name}={printable(_shown(value))}" for name, value in item.facts.items()))
        if item.entry_id is not None:
            typer.echo("      " + _("entrada {id}").format(id=item.entry_id))


@app.command("import", help=_("Recibir referencias en mensajes FHIR R4 (archivos JSON)."))
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=_("Mensajes FHIR."))],
    institution: Annotated[str, typer.Option(help=_("Institución que los envía."))] = "MSPBS",
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON, una línea por archivo."))] = False,
) -> None:
    """Take each file as if its institution had sent it; exit 1 when one was refused, 2 when one cannot be read."""
    bodies = []
    for path in files:
        try:
            bodies.append((path, path.read_bytes()))
        except OSError:
            typer.echo(_("No se puede leer el archivo {path}.").format(path=path), err=True)
            raise typer.Exit(2) from None
    results = asyncio.run(_import(bodies, institution))
    for result in results:
        if as_json:
            typer.echo(json_line(result))
            continue
        typer.echo(f"{result['file']}: {result['text']}")
        for notice in result["notices"]:
            typer.echo(f"  - {notice}")
    if not all(result["taken"] for result in results):
        raise typer.Exit(1)


async def _trace(referral_id: Any) -> tuple[Referral, list[ReferralEvent]] | None:
    async with open_context() as context:
        async with context.database.connection() as connection:
            current = await store.by_id(connection, referral_id)
            if current is None:
                return None
            happened = await store.events(connection, context.vault, referral_id)
        await context.audit.append(
            evidence.entry(
                "referral.read",
                "done",
                at=utc_now(),
                policy_version="none",
                subject=current.person_id,
                actor={"channel": "command-line"},
                exchange={"referral": str(referral_id)},
            )
        )
        return current, happened


async def _import(bodies: list[tuple[Path, bytes]], institution: str) -> list[dict[str, Any]]:
    results = []
    caller = Caller(
        client_id=f"siis-cli-{institution.lower()}",
        institution=institution,
        user=f"uid {os.getuid()}",
        roles=frozenset({"operator"}),
    )
    async with open_runtime(load_settings()) as runtime:
        intake = FhirIntake(runtime.referrals)
        for path, body in bodies:
            try:
                answer = (await intake.take(caller, body, None)).outcome
            except FhirRefused as refused:
                texts = [issue.text for issue in refused.issues]
                results.append({"file": path.name, "taken": False, "text": "; ".join(texts), "notices": []})
                continue
            told = [_issue_text(issue) for issue in answer["issue"]]
            results.append({"file": path.name, "taken": True, "id": answer["id"], "text": told[0], "notices": told[1:]})
    return results


def _issue_text(issue: dict[str, Any]) -> str:
    where = issue.get("expression", [])
    text = str(issue["details"]["text"])
    if not where:
        return text
    shown = ", ".join(where[:3])
    more = _(" y {n} más").format(n=len(where) - 3) if len(where) > 3 else ""
    return f"{text}: {shown}{more}"


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _label(item: ReferralEvent) -> str:
    ours = {
        "create": _("Creada"),
        "transmitted": _("Transmisión confirmada"),
        "attempt_failed": _("Intento fallido"),
        "dead_letter": _("Espera a una persona"),
        "withheld": _("Retenida"),
        "review": _("Revisión"),
        "requester_note": _("Nota de quien refirió"),
        "split": _("Repartida en más partes"),
        "given_up": _("Entrega abandonada por una persona"),
        "replayed": _("Entrega repetida por una persona"),
        "reminder": _("Recordatorio antes del vencimiento"),
        "overdue": _("Venció el plazo de respuesta"),
        "escalated": _("Avisada a quienes deben ocuparse"),
    }
    text = ours.get(item.type) or label("referral-events", item.type)
    return text + (_(" (supuesta)") if item.synthesised else "")


def _referral(current: Referral) -> dict[str, Any]:
    hidden = ("person_id", "caller")
    return {name: getattr(current, name) for name in Referral.__dataclass_fields__ if name not in hidden}


def _event(item: ReferralEvent) -> dict[str, Any]:
    return {name: getattr(item, name) for name in ReferralEvent.__dataclass_fields__ if name != "texts"}
