"""``siis audit verify-…``: judge what a log gave away and tell the verdict, without a database or settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from audit.proofs import logs
from audit.tiles import TileReader
from audit.verify import (
    ExportReport,
    NotValid,
    Policy,
    Signed,
    check_bundle,
    check_checkpoints,
    check_export,
    check_proof,
    parse_checkpoint,
    parse_note,
    parse_proof,
    read_hashes,
    read_leaf,
    read_policy,
    read_text,
)
from gateway.cli.changes import fail
from gateway.cli.context import open_context
from gateway.cli.screen import json_line
from schemas.errors import InvalidIdentifier, SchemaError
from schemas.ids import parse_uuid
from schemas.text import _, printable, translated
from schemas.validation import parse_json

app = typer.Typer(add_completion=False)

File = Annotated[Path, typer.Argument(metavar="ARCHIVO", help=_("Archivo a verificar."))]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help=_("Claves del registro y de sus testigos (C2SP tlog-policy)."))
]
Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]
# The last second that a calendar has; a witness may sign any number.
_LAST_YEAR = 253_402_300_799

#: What is said of something valid: for programs, and in lines for a person.
Verdict = tuple[dict[str, Any], list[str]]


@app.command("verify-proof", help=_("Verificar sin red que una entrada está en el registro."))
def verify_proof(
    file: File,
    leaf: Annotated[str | None, typer.Option(help=_("Hash de hoja de la entrada, hexadecimal."))] = None,
    receipt: Annotated[Path | None, typer.Option(help=_("Recibo de la entrada, en JSON."))] = None,
    policy: PolicyFile = None,
    as_json: Json = False,
) -> None:
    """Verify a proof (C2SP tlog-proof)."""
    if (leaf is None) == (receipt is None):
        fail(_("Dé el hash de hoja con --leaf o el recibo con --receipt."), 2)

    def work() -> Verdict:
        wanted = read_leaf(leaf) if leaf is not None else read_receipt(receipt)[1] if receipt is not None else b""
        return proven(read_text(file), wanted, needed(policy))

    judge(work, as_json)


@app.command("verify-checkpoints", help=_("Verificar que un punto de control continúa a otro anterior."))
def verify_checkpoints(
    old: Annotated[Path, typer.Argument(metavar="VIEJO", help=_("El punto de control anterior."))],
    new: Annotated[Path, typer.Argument(metavar="NUEVO", help=_("El punto de control posterior."))],
    proof: Annotated[Path | None, typer.Option(help=_("Prueba de consistencia: un hash en base64 por línea."))] = None,
    here: Annotated[bool, typer.Option("--here", help=_("Hacer la prueba con el registro de esta máquina."))] = False,
    policy: PolicyFile = None,
    as_json: Json = False,
) -> None:
    """Verify that a log only grew between two checkpoints; exit 2 when only a proof could tell."""

    def work() -> Verdict:
        notes = read_text(old), read_text(new)
        hashes = asyncio.run(_consistency(*notes)) if here else None if proof is None else read_hashes(proof)
        proved = check_checkpoints(*notes, needed(policy), hashes)
        if not proved:
            fail(_("Las firmas valen; que el nuevo continúa al viejo solo lo muestra una prueba: --proof"), 2)
        return {"valid": True}, [_("VÁLIDO: el registro solo creció entre los dos.")]

    judge(work, as_json)


@app.command("verify-export", help=_("Verificar una exportación o un expediente con su prueba, sin red."))
def verify_export(
    file: File,
    proof: Annotated[Path | None, typer.Option(help=_("Archivo de la prueba, si no es ARCHIVO.proof."))] = None,
    policy: PolicyFile = None,
    as_json: Json = False,
) -> None:
    """Verify an export and name its first wrong record; a ZIP is looked into."""

    def work() -> Verdict:
        trusted = None if policy is None else read_policy(policy)
        if file.suffix == ".zip" and proof is None:
            reports, unproven = check_bundle(file, trusted)
        else:
            reports, unproven = {file.name: check_export(file, proof, trusted)}, []
        said = {"valid": True, "exports": {name: _report(each) for name, each in reports.items()}, "unproven": unproven}
        lines = [line for name, each in reports.items() for line in _told(name, each)]
        if unproven:
            names = " ".join(map(printable, unproven))
            lines.append(_("Sin prueba en el ZIP: {names}").format(names=names))
        if policy is None:
            lines.append(_("Las claves son las que trae el archivo: repita con --policy y claves recibidas aparte."))
        return said, lines

    judge(work, as_json)


async def _consistency(old: str, new: str) -> list[bytes] | None:
    """Make the consistency proof between two checkpoints of ours; ``None`` where none is needed or can be made."""
    before, after = (parse_checkpoint(parse_note(note)[0]) for note in (old, new))
    async with open_context() as context, context.database.connection() as connection:
        ours = {f"{context.settings.log_origin}/{log}": log for log in await logs(connection)}
        log = ours.get(after.origin)
        if log is None or not 0 < before.size < after.size:
            return None
        return await TileReader(connection, log, after.size).consistency(before.size)


def judge(work: Callable[[], Verdict], as_json: bool) -> None:
    """Print the verdict of some work; ends the command with 1 where it raises NotValid, 2 where OSError."""
    try:
        said, lines = work()
    except NotValid as error:
        _refuse(error, as_json)
    except OSError as error:
        text = _("No se puede leer {file}: {why}")
        fail(text.format(file=error.filename or "", why=error.strerror or type(error).__name__), 2)
    if as_json:
        typer.echo(json_line(said))
        return
    for line in lines:
        typer.echo(line)


def _refuse(error: NotValid, as_json: bool) -> None:
    what = translated(error.what)
    places = {"file": error.file, "record": error.record, "log": error.log, "index": error.index}
    if as_json:
        typer.echo(json_line({"valid": False, "kind": error.kind, "what": what, **places}))
    else:
        names = {"file": _("archivo"), "record": _("fila o línea"), "log": _("registro"), "index": _("entrada")}
        where = ", ".join(f"{names[place]} {printable(str(at))}" for place, at in places.items() if at is not None)
        text = _("NO VÁLIDO ({kind}): {what}{where}.")
        typer.echo(text.format(kind=error.kind, what=what, where=f" ({where})" if where else ""), err=True)
    raise typer.Exit(1)


def needed(policy: Path | None) -> Policy:
    """Read the policy; ends the command where none is given: a signature means nothing without somebody's key."""
    if policy is None:
        fail(_("Dé con --policy las claves del registro, recibidas por otra vía: /audit/log/policy las muestra."), 2)
    return read_policy(policy)


def proven(text: str, leaf: bytes, policy: Policy) -> Verdict:
    """Verify a proof and say where the entry stands and who signed; raises NotValid."""
    signed, index = check_proof(text, leaf, policy), parse_proof(text).index
    origin = signed.checkpoint.origin
    line = _("VÁLIDO: es la entrada {index} del registro {origin}.").format(index=index, origin=printable(origin))
    return {"valid": True, "log": origin, "index": index, **_head(signed)}, [line, *_signers(signed)]


def read_receipt(file: Path) -> tuple[str, bytes]:
    """Read a receipt, or an answer with one in it: entry id and leaf hash; raises NotValid, OSError."""
    try:
        told = parse_json(read_text(file).encode())
    except SchemaError:
        told = None
    held = told.get("receipt", told) if isinstance(told, dict) else None
    match held:
        case {"entry_id": str(entry_id), "leaf_hash": str(leaf)}:
            try:
                return str(parse_uuid(entry_id)), read_leaf(leaf)
            except InvalidIdentifier:
                pass
    raise NotValid("malformed", _("el archivo no es un recibo"))


def _head(signed: Signed) -> dict[str, Any]:
    return {
        "size": signed.checkpoint.size,
        "root": signed.checkpoint.root.hex(),
        "witnesses": {name: _time(seconds) for name, seconds in signed.witnesses.items()},
    }


def _signers(signed: Signed) -> list[str]:
    lines = [_("Lo cubre un punto de control de {size} entradas.").format(size=signed.checkpoint.size)]
    for name, seconds in signed.witnesses.items():
        lines.append(_("Testigo {name}: {time}").format(name=printable(name), time=_time(seconds)))
    if not signed.witnesses:
        lines.append(_("Sin testigos: solo la clave del registro lo dice, y no dice cuándo."))
    return lines


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds <= _LAST_YEAR else str(seconds)


def _report(report: ExportReport) -> dict[str, Any]:
    origin, index = report.place
    return {
        "kind": report.kind,
        "records": report.records,
        "without_detail": report.bare,
        "sha256": report.sha256,
        "log": origin,
        "index": index,
        "keys": "given" if report.trusted else "in_the_file",
        "checkpoints": {signed.checkpoint.origin: _head(signed) for signed in report.heads.values()},
        "files": sorted(report.files),
    }


def _told(name: str, report: ExportReport) -> list[str]:
    origin, index = report.place
    first = _("VÁLIDO: {name}, {records} filas, {bare} sin detalle (borrado o no mostrado).")
    where = _("La exportación es la entrada {index} del registro {origin}.")
    lines = [
        first.format(name=printable(name), records=report.records, bare=report.bare),
        where.format(index=index, origin=printable(origin)),
    ]
    for signed in report.heads.values():
        lines += _signers(signed)
    return lines
