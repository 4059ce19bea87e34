"""``siis agreement``: shows agreements and takes their steps in the name of a party; every step is in the log."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import orjson
import typer
import yaml
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.agreement_view import conflict_json, summary_json
from consent.agreements import Step, conflicts_of, list_histories
from consent.models import Actor, AgreementStatus
from gateway import errors
from gateway.cli.changes import carry_out, fail
from gateway.cli.context import open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.governance import agreements
from schemas.codes import code_list, label
from schemas.errors import SchemaError
from schemas.text import _, printable
from schemas.validation import parse_json, validate

app = typer.Typer(help=_("Acuerdos entre instituciones."), no_args_is_help=True, add_completion=False)

_ALL = 1_000_000
_LONGEST = 200
_FoundT = TypeVar("_FoundT")
_SIGNATORY = re.compile(r"[A-Za-z0-9:._@-]{1,64}\Z")

Code = Annotated[str, typer.Argument(metavar="CODE", help=_("Código del acuerdo."))]
Party = Annotated[str, typer.Option(help=_("Parte en cuyo nombre se actúa: código de la institución."))]
Reason = Annotated[str | None, typer.Option(help=_("Acto que lo ordena, sin nombrar personas."))]
AsJson = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]


@app.command("list", help=_("Mostrar los acuerdos."))
def list_(
    party: Annotated[str | None, typer.Option(help=_("Solo los de esta institución."))] = None,
    status: Annotated[str | None, typer.Option(help=_("Solo los que están en este estado."))] = None,
    as_json: AsJson = False,
) -> None:
    """Show the agreements."""

    async def read(connection: AsyncConnection) -> list[dict[str, Any]]:
        histories = await list_histories(connection, party=party, status=status, limit=_ALL)
        return [summary_json(history) for history in histories]

    if status is not None and status not in get_args(AgreementStatus):
        raise typer.BadParameter(" | ".join(get_args(AgreementStatus)), param_hint="--status")
    found = asyncio.run(_read(read))
    if as_json:
        typer.echo(json_line(found))
        return
    table = Table(_("Código"), _("Pide"), _("Entrega"), _("Estado"), _("Versión"), _("Hasta"), _("En trámite"))
    for each in found:
        pending = each["pending"] if each["pending"] != {"version": each["version"], "status": each["status"]} else None
        row = (
            each["code"],
            each["requester"],
            each["holder"],
            _statuses()[each["status"]],
            str(each["version"]),
            (each["valid_to"] or "")[:10],
            "" if pending is None else f"{_statuses()[pending['status']]} ({pending['version']})",
        )
        table.add_row(*map(cell, row))
    screen().print(table)


@app.command(help=_("Mostrar un acuerdo: texto, versiones, firmas y lo que lo contradice."))
def show(code: Code, as_json: AsJson = False) -> None:
    """Show one agreement."""

    async def read(connection: AsyncConnection) -> dict[str, Any]:
        return await agreements.show(connection, code)

    try:
        shown = asyncio.run(_read(read))
    except errors.NotFound:
        fail(_("No hay un acuerdo con ese código."), 1)
    if as_json:
        typer.echo(json_line(shown))
        return
    for line in _lines(shown):
        typer.echo(printable(line))


@app.command(help=_("Guardar un borrador: un acuerdo nuevo, o el texto que reemplazará a uno."))
def draft(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("Texto del acuerdo en YAML."))],
    party: Party,
    as_json: AsJson = False,
) -> None:
    """Store a draft."""
    message = _message(file)

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        return await agreements.draft(connection, message, actor=actor, party=party, at=at)

    _tell(carry_out(work), as_json)


@app.command(help=_("Proponer el borrador a la otra parte."))
def propose(code: Code, party: Party, as_json: AsJson = False) -> None:
    """Propose the draft."""
    _step(code, "propose", party, as_json)


@app.command(help=_("Registrar la firma de una parte sobre el texto propuesto."))
def sign(
    code: Code,
    party: Party,
    signatory: Annotated[str, typer.Option(help=_("Quien firma: su usuario en la institución."))],
    proof: Annotated[str, typer.Option(help=_("Dónde está el texto firmado, por ejemplo el número de expediente."))],
    as_json: AsJson = False,
) -> None:
    """Record the signature of a party."""
    if not _SIGNATORY.match(signatory):
        raise typer.BadParameter(_("un usuario, sin espacios"), param_hint="--signatory")
    if not (1 <= len(proof) <= _LONGEST and proof.isprintable()):
        raise typer.BadParameter(_("de 1 a 200 caracteres visibles"), param_hint="--proof")
    _step(code, "sign", party, as_json, signatory=signatory, proof_reference=proof)


@app.command(help=_("Poner en vigencia el texto que firmaron las dos partes."))
def activate(code: Code, party: Party, as_json: AsJson = False) -> None:
    """Bring the signed text into force."""
    _step(code, "activate", party, as_json)


@app.command(help=_("Suspender el acuerdo: desde ya no permite nada."))
def suspend(code: Code, party: Party, reason: Reason = None, as_json: AsJson = False) -> None:
    """Suspend an agreement."""
    _step(code, "suspend", party, as_json, reason=reason)


@app.command(help=_("Reanudar un acuerdo; solo la parte que lo suspendió."))
def resume(code: Code, party: Party, reason: Reason = None, as_json: AsJson = False) -> None:
    """Resume a suspended agreement."""
    _step(code, "resume", party, as_json, reason=reason)


@app.command(help=_("Terminar el acuerdo para siempre."))
def expire(code: Code, party: Party, reason: Reason = None, as_json: AsJson = False) -> None:
    """End an agreement."""
    _step(code, "expire", party, as_json, reason=reason)


@app.command(help=_("Mostrar los acuerdos vigentes que se contradicen; entre dos vale el más estrecho."))
def conflicts(as_json: AsJson = False) -> None:
    """Show which active agreements contradict each other."""

    async def read(connection: AsyncConnection) -> list[dict[str, Any]]:
        return [conflict_json(each) for each in await conflicts_of(connection)]

    found = asyncio.run(_read(read))
    if as_json:
        typer.echo(json_line(found))
        return
    if not found:
        typer.echo(_("Ningún acuerdo vigente contradice a otro."))
    for each in found:
        typer.echo(_contradiction(each))


def _message(file: Path) -> dict[str, Any]:
    """Read a draft as it would come over HTTP: the same strict reading, the same schema."""
    try:
        loaded = yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)
        message = parse_json(orjson.dumps(loaded))
        validate("agreement-draft", message)
    except OSError:
        fail(_("No se puede leer el archivo {path}.").format(path=file), 2)
    except (yaml.YAMLError, orjson.JSONEncodeError):
        fail(_("El archivo {path} no es YAML que se pueda usar.").format(path=file), 2)
    except SchemaError as error:
        told = [f"{violation.pointer or '/'}: {violation.message}" for violation in error.violations]
        fail(printable("; ".join(told)), 2)
    return dict(message)


def _step(
    code: str,
    name: Step,
    party: str,
    as_json: bool,
    *,
    signatory: str | None = None,
    proof_reference: str | None = None,
    reason: str | None = None,
) -> None:
    if reason is not None and not (1 <= len(reason) <= _LONGEST and reason.isprintable()):
        raise typer.BadParameter(_("de 1 a 200 caracteres visibles"), param_hint="--reason")

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        return await agreements.step(
            connection,
            code,
            name,
            actor=actor,
            party=party,
            at=at,
            signatory=signatory,
            proof_reference=proof_reference,
            reason=reason,
        )

    _tell(carry_out(work), as_json)


async def _read(read: Callable[[AsyncConnection], Awaitable[_FoundT]]) -> _FoundT:
    async with open_context() as context, context.database.connection() as connection:
        return await read(connection)


def _tell(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(
        _("Acuerdo {code}, versión {version}: {status}").format(
            code=said["agreement"], version=said["version"], status=_statuses()[said["status"]]
        )
    )
    for conflict in said.get("conflicts", ()):
        typer.echo("  " + _contradiction(conflict))


def _lines(shown: dict[str, Any]) -> Iterator[str]:
    yield f"{shown['code']}: {shown['es']}"
    yield _("  {requester} pide a {holder}").format(**shown)
    for title, text in ((_("Vigente"), shown["current"]), (_("En trámite"), shown["pending"])):
        if text is not None:
            yield _("{title}: versión {version}, {status}, desde {start} hasta {end}").format(
                title=title,
                version=text["version"],
                status=_statuses()[text["status"]],
                start=text["valid_from"][:10],
                end=(text["valid_to"] or _("sin fin"))[:10],
            )
            yield from _text(text)
    yield _("Versiones:")
    for each in shown["versions"]:
        yield f"  {each['version']:>3} {each['at'][:19]}Z {_statuses()[each['status']]} {each['by'] or ''}".rstrip()
    yield _("Firmas:")
    for each in shown["signatures"]:
        yield f"  {each['at'][:19]}Z {each['party']} {each['signatory']} ({each['proof_reference']})"
    yield _("Pasos posibles: {steps}").format(steps=" ".join(shown["steps"]))
    yield from map(_contradiction, shown["conflicts"])


def _text(text: dict[str, Any]) -> Iterator[str]:
    for dataset, fields in text["datasets"].items():
        known = code_list("datasets")
        name = label("datasets", dataset) if dataset in known else dataset
        reduced = text["treatments"].get(dataset, {})
        shown = [
            f"{field} ({label('treatments', reduced[field]).lower()})" if field in reduced else field
            for field in fields
        ]
        yield f"  {name}: {', '.join(shown)}"
    yield _("  Para: {purposes}").format(purposes="; ".join(label("purposes", each) for each in text["purposes"]))
    for agreed in text["bases"]:
        yield f"  {label('legal-bases', agreed['basis'])}: {agreed['norm']}"
    yield _("  Clases de datos: {labels}").format(labels=", ".join(label("labels", each) for each in text["labels"]))
    yield _("  Roles: {roles}").format(roles=", ".join(label("roles", each) for each in text["roles"]))
    if text["volume_per_day"] is not None:
        yield _("  Hasta {n} entregas por día").format(n=text["volume_per_day"])
    if text["retention_days"] is not None:
        yield _("  Se guarda hasta {n} días").format(n=text["retention_days"])


def _contradiction(found: dict[str, Any]) -> str:
    return _("{first} y {second} difieren sobre {dataset} en: {differs}; vale lo más estrecho").format(
        first=found["first"], second=found["second"], dataset=found["dataset"], differs=", ".join(found["differs"])
    )


def _statuses() -> dict[str, str]:
    return {
        "draft": _("borrador"),
        "proposed": _("propuesto"),
        "signed": _("firmado"),
        "active": _("vigente"),
        "suspended": _("suspendido"),
        "expired": _("terminado"),
    }
