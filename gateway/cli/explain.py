"""``siis consent explain``: why something was decided, rule by rule: worked cases, an entry, a supposed request."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, NoReturn
from uuid import UUID

import typer
from rich.console import Console

from consent.explain import Line
from gateway import errors
from gateway.api.decisions import explanation_json
from gateway.cli.screen import json_line, screen
from gateway.governance.explanations import Explanation, Supposed
from schemas.text import _, printable

_MARKS = {"yes": "✓", "no": "✗", "note": "·"}


def explain(
    entry: Annotated[
        str | None, typer.Option(metavar="ID", help=_("Número de la constancia de una decisión pasada."))
    ] = None,
    case: Annotated[str | None, typer.Option(help=_("Un caso de ejemplo: pension, health o violence."))] = None,
    requester: Annotated[str | None, typer.Option(help=_("Institución que pediría."))] = None,
    dataset: Annotated[str | None, typer.Option(help=_("Conjunto de datos que pediría."))] = None,
    field: Annotated[list[str] | None, typer.Option(help=_("Campo que pediría; se puede repetir."))] = None,
    purpose: Annotated[str | None, typer.Option(help=_("Finalidad."))] = None,
    basis: Annotated[str | None, typer.Option(help=_("Base legal."))] = None,
    role: Annotated[list[str] | None, typer.Option(help=_("Rol de quien pediría; por omisión operator."))] = None,
    cedula: Annotated[str | None, typer.Option(help=_("Cédula de la persona; si falta, nadie en particular."))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Explain a decision; without options, the three worked cases."""
    wanted = (requester, dataset, field, purpose, basis)
    try:
        if entry is not None:
            _show(asyncio.run(_explained(_entry_id(entry))), as_json)
        elif any(wanted):
            if requester is None or dataset is None or not field or purpose is None or basis is None:
                _unusable(_("Un pedido supuesto lleva --requester, --dataset, --field, --purpose y --basis."))
            supposed = Supposed(
                institution=requester,
                roles=frozenset(role or ("operator",)),
                assurance=1,
                dataset=dataset,
                fields=tuple(field),
                purpose=purpose,
                basis=basis,
                subject=None if cedula is None else ("cedula", cedula),
            )
            _show(asyncio.run(_explained(supposed)), as_json)
        else:
            _show_cases(case, as_json)
    except errors.NotFound:
        typer.echo(_("No hay una decisión con ese número de constancia."), err=True)
        raise typer.Exit(1) from None
    except errors.BadRequest as error:
        allowed = ", ".join(error.allowed)
        text = _("El pedido no es válido: {code} ({field}). Valen: {allowed}")
        _unusable(text.format(code=error.code, field=error.pointer, allowed=allowed or "—"))


def _show_cases(code: str | None, as_json: bool) -> None:
    from consent.cases import cases, explained, policy

    known, rules = cases(), policy()
    chosen = [each for each in known if code in (None, each.code)]
    if not chosen:
        _unusable(_("No hay tal caso; los hay: {codes}").format(codes=", ".join(each.code for each in known)))
    if as_json:
        told: list[dict[str, Any]] = [
            {
                "case": each.code,
                "title": each.title,
                "story": each.story,
                "lines": [line._asdict() for line in explained(each, rules)],
            }
            for each in chosen
        ]
        typer.echo(json_line(told))
        return
    console = screen()
    for each in chosen:
        _print(console, each.title)
        _print(console, each.story)
        _print_lines(console, explained(each, rules))
        _print(console, "")


async def _explained(what: UUID | Supposed) -> Explanation:
    # Imported only here: the worked cases need no database and none of this.
    from gateway.runtime import open_runtime
    from gateway.settings import load_settings

    async with open_runtime(load_settings()) as runtime:
        if isinstance(what, UUID):
            return await runtime.explanations.of_entry(None, what)
        return await runtime.explanations.of_request(None, what)


def _show(found: Explanation, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(explanation_json(found)))
        return
    _print_lines(screen(), found.lines)


def _print_lines(console: Console, lines: list[Line]) -> None:
    for line in lines:
        _print(console, f"  {_MARKS[line.verdict]} {line.text}")


def _print(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _entry_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        _unusable(_("--entry espera el número de una constancia, un UUID."))


def _unusable(text: str) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(2)
