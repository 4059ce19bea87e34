"""``siis protection``: flags that nobody overrides, who acts for a person, and what they object to."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer

from consent.people import PARAGUAY
from gateway.cli.changes import ended, fail, number
from gateway.cli.context import governance_of, open_context
from gateway.cli.screen import json_line
from gateway.commands import Done
from gateway.governance.people import Named
from gateway.governance.protection import FlagChange, NewMandate, Protection
from schemas.codes import label
from schemas.text import _, printable

app = typer.Typer(
    help=_("Proteger a las personas: casos protegidos, representantes y oposiciones."),
    no_args_is_help=True,
    add_completion=False,
)

Cedula = Annotated[str, typer.Argument(metavar="CEDULA", help=_("Cédula de la persona."))]
Purpose = Annotated[str, typer.Argument(metavar="FINALIDAD", help=_("Código de la finalidad."))]
Number = Annotated[str, typer.Argument(metavar="ID", help=_("Número de la representación."))]
Act = Annotated[str | None, typer.Option("--reference", help=_("Acto que lo ordena, por ejemplo la resolución."))]
Order = Annotated[str, typer.Option("--reference", help=_("Acto que lo ordena, por ejemplo la resolución."))]
Institution = Annotated[str | None, typer.Option(help=_("De qué institución se la protege."))]
Person = Annotated[str | None, typer.Option(help=_("Cédula de la persona de quien se la protege."))]
Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]
T = TypeVar("T")


def _flagging(kind: str, *, lift: bool) -> Callable[..., None]:
    def flag(cedula: Cedula, reference: Act = None, as_json: Json = False) -> None:
        """Set a flag or lift it."""
        _flag(FlagChange(subject=Named("cedula", cedula), kind=kind, reference=reference), lift, as_json)

    return flag


def _barring(*, lift: bool) -> Callable[..., None]:
    def bar(
        cedula: Cedula,
        institution: Institution = None,
        person: Person = None,
        reference: Act = None,
        as_json: Json = False,
    ) -> None:
        """Bar somebody from a case, or let them back."""
        if (institution is None) is (person is None):
            fail(_("Indique --institution o --person, uno de los dos."), 2)
        other = None if person is None else Named("cedula", person)
        change = FlagChange(
            subject=Named("cedula", cedula),
            kind="aggressor",
            institution=institution,
            person=other,
            reference=reference,
        )
        _flag(change, lift, as_json)

    return bar


def _ordering(*, lift: bool) -> Callable[..., None]:
    def order(cedula: Cedula, reference: Order, as_json: Json = False) -> None:
        """Close a case by a court's order, or open it by another one."""
        _flag(FlagChange(subject=Named("cedula", cedula), kind="court-order", reference=reference), lift, as_json)

    return order


app.command("seal", help=_("Reservar el caso de una persona: nadie recibe nada de ella."))(
    _flagging("sealed", lift=False)
)
app.command("unseal", help=_("Levantar la reserva de un caso."))(_flagging("sealed", lift=True))
app.command("bar", help=_("Proteger a una persona de otra o de una institución."))(_barring(lift=False))
app.command("unbar", help=_("Levantar la protección frente a otra persona o institución."))(_barring(lift=True))
app.command("order", help=_("Cerrar un caso por orden judicial."))(_ordering(lift=False))
app.command("lift-order", help=_("Abrir, por otra orden, un caso cerrado por orden judicial."))(_ordering(lift=True))
app.command("keep", help=_("Impedir que los datos de una persona salgan de quien los tiene."))(
    _flagging("export-ban", lift=False)
)
app.command("release", help=_("Permitir de nuevo que los datos de una persona salgan."))(
    _flagging("export-ban", lift=True)
)


@app.command(help=_("Registrar quién puede actuar por una persona; se indican ambas por su cédula."))
def represent(
    cedula: Cedula,
    representative: Annotated[str, typer.Argument(metavar="REPRESENTANTE", help=_("Cédula de quien actúa por ella."))],
    kind: Annotated[str, typer.Option(help=_("parent, guardian, curator o proxy."))],
    proof: Annotated[str, typer.Option(help=_("Acta o resolución que lo dice."))],
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help=_("Día en que termina, excluido."))
    ] = None,
    as_json: Json = False,
) -> None:
    """Record a mandate."""
    new = NewMandate(
        subject=Named("cedula", cedula),
        representative=Named("cedula", representative),
        kind=kind,
        proof_reference=proof,
        valid_to=None if until is None else until.replace(tzinfo=PARAGUAY),
    )
    done = _at_desk(lambda desk: desk.add_representative(None, new))
    _tell(done, as_json, _("Representación registrada: {representation}"))


@app.command(help=_("Terminar una representación."))
def end(mandate: Number, as_json: Json = False) -> None:
    """End a mandate."""
    which = number(mandate)
    done = _at_desk(lambda desk: desk.end_representative(None, which, step="end", reason="ended"))
    _tell(done, as_json, _("Representación terminada: {representation}"))


@app.command(help=_("Impedir que un representante actúe, por conflicto de intereses u orden judicial."))
def block(
    mandate: Number,
    reason: Annotated[str, typer.Option(help=_("conflict-of-interest o court-order."))],
    as_json: Json = False,
) -> None:
    """Block a mandate."""
    which = number(mandate)
    done = _at_desk(lambda desk: desk.end_representative(None, which, step="block", reason=reason))
    _tell(done, as_json, _("Representante bloqueado: {representation}"))


@app.command("object", help=_("Registrar que una persona se opone a una finalidad."))
def object_to(cedula: Cedula, purpose: Purpose, as_json: Json = False) -> None:
    """Record an objection."""
    done = _at_desk(lambda desk: desk.object(None, Named("cedula", cedula), purpose))
    _tell(done, as_json, _("Oposición registrada: {purpose}"))


@app.command("withdraw-objection", help=_("Registrar que una persona retira su oposición."))
def withdraw_objection(cedula: Cedula, purpose: Purpose, as_json: Json = False) -> None:
    """Take back an objection."""
    done = _at_desk(lambda desk: desk.object(None, Named("cedula", cedula), purpose, withdraw=True))
    _tell(done, as_json, _("Oposición retirada: {purpose}"))


@app.command(help=_("Mostrar qué protege a una persona, quién actúa por ella y a qué se opone."))
def show(cedula: Cedula, as_json: Json = False) -> None:
    """Show everything of this room about a person but their consents."""
    who = Named("cedula", cedula)

    async def all_of(desk: Protection) -> dict[str, Any]:
        return {
            "protection_flags": (await desk.flags(None, who)).shown,
            "representatives": (await desk.representatives(None, who, limit=200)).shown,
            "objections": (await desk.objections(None, who)).shown,
        }

    found = _at_desk(all_of)
    if as_json:
        typer.echo(json_line(found))
        return
    for each in found["protection_flags"]:
        target, act = each["target"] or "", each["reference"] or ""
        typer.echo(printable(_("Protección: {kind} {target} {act}").format(kind=each["kind"], target=target, act=act)))
    for each in found["representatives"]:
        state = _("vigente") if each["in_force"] else _("no vigente")
        line = _("Representante: {id} {kind}, {state}").format(id=each["id"], kind=each["kind"], state=state)
        typer.echo(printable(line))
    for each in found["objections"]:
        typer.echo(printable(_("Se opone a: {purpose}").format(purpose=label("purposes", each["purpose"]))))
    if not any(found.values()):
        typer.echo(_("No hay nada registrado."))


def _flag(change: FlagChange, lift: bool, as_json: bool) -> None:
    sentence = _("Protección levantada: {kind}") if lift else _("Protección puesta: {kind}")
    _tell(_at_desk(lambda desk: desk.flag(None, change, lift=lift)), as_json, sentence)


def _at_desk(do: Callable[[Protection], Coroutine[Any, Any, T]]) -> T:
    """Do something about a person for whoever runs this machine; ends the command when it is refused."""

    async def done() -> T:
        async with open_context() as context:
            return await do(Protection(governance_of(context), context.vault))

    return ended(done())


def _tell(done: Done, as_json: bool, sentence: str) -> None:
    if as_json:
        typer.echo(json_line(done.answer))
        return
    if done.answer.get("changed", True):
        typer.echo(printable(sentence.format(**done.answer)))
    else:
        typer.echo(_("Nada cambió: ya estaba así."))
    typer.echo(_("Entrada de auditoría: {entry}").format(entry=done.answer["receipt"]["entry_id"]))
