"""``siis consent``: what persons answered, recorded, shown and ended, and the receipt they keep."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from rich.table import Table

from consent.people import PARAGUAY
from consent.records import Answer, NewConsent, Step
from gateway.cli.changes import ended, fail, number
from gateway.cli.context import governance_of, open_context
from gateway.cli.explain import explain
from gateway.cli.screen import cell, json_line, screen
from gateway.governance.consents import Consents
from gateway.governance.people import Named
from schemas.codes import label
from schemas.text import _, printable

app = typer.Typer(help=_("Consentimientos de las personas."), no_args_is_help=True, add_completion=False)
app.command("explain", help=_("Decir, regla por regla, por qué se decide algo; sin opciones, tres casos."))(explain)

_PART, _LONGEST = 200, 20_000
Cedula = Annotated[str, typer.Argument(metavar="CEDULA", help=_("Cédula de la persona."))]
Agreement = Annotated[str, typer.Argument(metavar="ACUERDO", help=_("Código de un acuerdo que pide consentimiento."))]
Number = Annotated[str, typer.Argument(metavar="ID", help=_("Número, como lo muestra la lista."))]
Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]
Purposes = Annotated[list[str], typer.Option("--purpose", help=_("Código de una finalidad; se puede repetir."))]
Fields = Annotated[list[str], typer.Option("--field", help=_("Campo del acuerdo; se puede repetir."))]
Labels = Annotated[list[str] | None, typer.Option("--label", help=_("Clase sensible que nombra; se puede repetir."))]
Text = Annotated[str, typer.Option("--text", help=_("Versión del texto que se le leyó."))]
Language = Annotated[str, typer.Option(help=_("Idioma del texto: es, gn."))]
Channel = Annotated[str, typer.Option(help=_("Cómo respondió: in-person, web, phone o paper."))]
Proof = Annotated[str, typer.Option(help=_("Dónde está la prueba, por ejemplo el número de formulario."))]
Mandate = Annotated[
    str | None, typer.Option("--representation", help=_("Número de la representación por la que otro responde."))
]
Until = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help=_("Día en que termina, excluido."))]
Reason = Annotated[str, typer.Option(help=_("Código del motivo."))]
T = TypeVar("T")


def _answering(state: Answer, sentence: str) -> Callable[..., None]:
    def answer(
        cedula: Cedula,
        agreement: Agreement,
        purpose: Purposes,
        field: Fields,
        text: Text,
        proof: Proof,
        label: Labels = None,
        language: Language = "es",
        channel: Channel = "in-person",
        representation: Mandate = None,
        until: Until = None,
        as_json: Json = False,
    ) -> None:
        """Record an answer."""
        new = NewConsent(
            agreement=agreement,
            purposes=frozenset(purpose),
            fields=frozenset(field),
            labels=frozenset(label or ()),
            text_version=text,
            language=language,
            channel=channel,
            proof_reference=proof,
            representation=None if representation is None else number(representation),
            expires_at=None if until is None else until.replace(tzinfo=PARAGUAY),
        )
        done = _at_desk(lambda desk: desk.record(None, Named("cedula", cedula), new, state=state))
        _tell(done.answer, as_json, sentence)

    return answer


app.command("give", help=_("Registrar que una persona consintió, o renovó su consentimiento."))(
    _answering("given", _("Consentimiento registrado: {consent}"))
)
app.command("refuse", help=_("Registrar que una persona no consintió; cierra lo que antes abrió."))(
    _answering("refused", _("Negativa registrada: {consent}"))
)
app.command("request", help=_("Registrar que a una persona se le pidió su consentimiento."))(
    _answering("requested", _("Pedido registrado: {consent}"))
)


@app.command(help=_("Retirar un consentimiento, porque la persona lo pide: vale desde el pedido siguiente."))
def withdraw(
    consent_id: Number,
    reason: Annotated[
        str, typer.Option(help=_("Quién lo pidió: person, representative o word-to-officer."))
    ] = "person",
    as_json: Json = False,
) -> None:
    """Withdraw a consent."""
    _end(consent_id, "withdraw", reason, as_json, _("Consentimiento retirado: {consent}"))


@app.command(help=_("Revocar un consentimiento, por la institución o una autoridad."))
def revoke(consent_id: Number, reason: Reason, as_json: Json = False) -> None:
    """Revoke a consent."""
    _end(consent_id, "revoke", reason, as_json, _("Consentimiento revocado: {consent}"))


@app.command(help=_("Anular un consentimiento cuya prueba no vale."))
def invalidate(consent_id: Number, reason: Reason, as_json: Json = False) -> None:
    """Invalidate a consent."""
    _end(consent_id, "invalidate", reason, as_json, _("Consentimiento anulado: {consent}"))


@app.command("list", help=_("Mostrar lo que una persona respondió."))
def list_(cedula: Cedula, as_json: Json = False) -> None:
    """Show a person's answers."""

    async def all_of(desk: Consents) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            after = UUID(found[-1]["id"]) if found else None
            part = (await desk.search(None, Named("cedula", cedula), after=after, limit=_PART)).shown
            found += part
            if len(part) < _PART:
                return found

    found = _at_desk(all_of)
    if as_json:
        typer.echo(json_line(found))
        return
    table = Table(_("Número"), _("Acuerdo"), _("Para qué"), _("Estado"), _("Vigente"), _("Fecha"), _("Vale hasta"))
    for each in found:
        table.add_row(
            each["id"],
            cell(each["agreement"]),
            cell(", ".join(label("purposes", code) for code in each["purposes"])),
            _states()[each["state"]],
            _("sí") if each["in_force"] else _("no"),
            each["given_at"][:10],
            (each["expires_at"] or "")[:10],
        )
    screen().print(table)


@app.command(help=_("Mostrar un consentimiento."))
def show(consent_id: Number, as_json: Json = False) -> None:
    """Show one record."""
    which = number(consent_id)
    found = _at_desk(lambda desk: desk.read(None, which)).shown
    if as_json:
        typer.echo(json_line(found))
        return
    for name, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        typer.echo(printable(f"{name}: {'' if shown is None else shown}"))


@app.command(help=_("Emitir la constancia que la persona guarda; con --json, según ISO/IEC TS 27560."))
def receipt(consent_id: Number, as_json: Json = False) -> None:
    """Issue the receipt."""
    which = number(consent_id)
    looked = _at_desk(lambda desk: desk.receipt(None, which))
    if as_json:
        typer.echo(json_line({**looked.shown, "receipt": looked.receipt}))
        return
    for line in looked.shown["text"].splitlines():
        typer.echo(printable(line))
    typer.echo(_("SHA-256 de esta constancia: {digest}").format(digest=looked.shown["text_sha256"]))
    typer.echo(_("Entrada de auditoría: {entry}").format(entry=looked.receipt["entry_id"]))


@app.command(help=_("Publicar el texto que se lee a las personas; sin FILE, mostrar los publicados."))
def text(
    agreement: Agreement,
    version: Annotated[str | None, typer.Argument(metavar="VERSION", help=_("Versión del texto."))] = None,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help=_("Archivo de texto en UTF-8."))] = None,
    language: Language = "es",
    as_json: Json = False,
) -> None:
    """Publish a text, or show those published."""
    if version is None or file is None:
        if version is not None:
            fail(_("VERSION y FILE van juntos."), 2)
        texts = _at_desk(lambda desk: desk.texts(None, agreement, limit=_PART))
        shown = [each._asdict() | {"text_sha256": each.text_sha256.hex()} for each in texts]
        if as_json:
            typer.echo(json_line(shown))
            return
        for each in shown:
            typer.echo(printable(f"{each['version']} {each['language']} {each['text_sha256']}"))
        return
    words = _read(file)
    done = _at_desk(
        lambda desk: desk.publish(None, agreement=agreement, version=version, language=language, text=words)
    )
    _tell(done.answer, as_json, _("Texto publicado: {agreement} {version} {language}"))


def _read(file: Path) -> str:
    """Read a text of the length that the HTTP face takes too; ends the command for anything else."""
    try:
        words = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        fail(_("El archivo no está en UTF-8."), 2)
    if not 0 < len(words) <= _LONGEST:
        fail(_("El texto lleva de 1 a {most} caracteres.").format(most=_LONGEST), 2)
    return words


def _end(consent_id: str, step: Step, reason: str, as_json: bool, sentence: str) -> None:
    which = number(consent_id)
    _tell(_at_desk(lambda desk: desk.step(None, which, step, reason=reason)).answer, as_json, sentence)


def _at_desk(do: Callable[[Consents], Coroutine[Any, Any, T]]) -> T:
    """Do something about consents for whoever runs this machine; ends the command when it is refused."""

    async def done() -> T:
        async with open_context() as context:
            return await do(Consents(governance_of(context), context.vault))

    return ended(done())


def _tell(said: dict[str, Any], as_json: bool, sentence: str) -> None:
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(printable(sentence.format(**said)))
    typer.echo(_("Entrada de auditoría: {entry}").format(entry=said["receipt"]["entry_id"]))


def _states() -> dict[str, str]:
    return {
        "requested": _("pedido"),
        "given": _("dado"),
        "refused": _("negado"),
        "withdrawn": _("retirado"),
        "revoked": _("revocado"),
        "invalidated": _("anulado"),
        "expired": _("vencido"),
    }
