"""``siis catalogue``: the catalogue of services shown, checked, imported and exported; every change is in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar

import orjson
import typer
import yaml
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Actor
from gateway import errors
from gateway.catalogue import changes, store
from gateway.catalogue.changes import codes_of, plan
from gateway.catalogue.models import KINDS, Item
from gateway.catalogue.store import Documents
from gateway.cli.changes import fail
from gateway.cli.context import governance_of, open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import PARAGUAY
from gateway.standards.hsds.account import NotKept
from gateway.standards.hsds.files import Unreadable, csv_files, json_files, read_path
from gateway.standards.hsds.layout import Tables
from gateway.standards.hsds.reading import read_tables
from gateway.standards.hsds.writing import tables_of
from schemas.errors import SchemaError
from schemas.text import _, printable
from schemas.validation import parse_json

app = typer.Typer(
    help=_("Catálogo: instituciones, programas, servicios, lugares, paquetes y rutas."),
    no_args_is_help=True,
    add_completion=False,
)

# As many lines as somebody reads on a screen; --json has them all.
_LINES = 40
_YAML = frozenset({".yaml", ".yml"})
_DoneT = TypeVar("_DoneT")


class Format(StrEnum):
    """How an export is written."""

    json = "hsds-json"
    csv = "hsds-csv"
    yaml = "yaml"


class _Read(NamedTuple):
    """A file as a change: the message, what is wrong with the file itself, what is not kept, where each entry stood."""

    message: Documents
    mistakes: list[errors.Mistake]
    not_kept: list[NotKept]
    origins: dict[str, str]


Given = Annotated[
    Path, typer.Argument(metavar="PATH", help=_("Archivo YAML o JSON, o carpeta con archivos JSON o CSV de HSDS 3.0."))
]
Kind = Annotated[str, typer.Argument(metavar="KIND", help=_("Clase: {kinds}.").format(kinds=" ".join(KINDS)))]
Code = Annotated[str, typer.Argument(metavar="CODE", help=_("Código."))]
On = Annotated[str | None, typer.Option("--on", help=_("Como era al final de ese día (AAAA-MM-DD), en Paraguay."))]
AsJson = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]


@app.command("import", help=_("Tomar un archivo o carpeta: todo lo que trae, o nada si algo está mal."))
def import_(path: Given, as_json: AsJson = False) -> None:
    """Import a file or folder."""
    given = _given(path)

    async def carried_out() -> tuple[dict[str, Any], list[NotKept]]:
        async with open_context() as context:
            async with context.database.connection() as connection:
                read = given(await store.current(connection))
            if read.mistakes:
                raise errors.Invalid("bad-catalogue", read.mistakes)

            async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
                return await changes.change(connection, read.message, actor=actor, at=at)

            try:
                said = await governance_of(context).change_here(work)
            except errors.Conflict:
                said = {"change": None, "changed": {}}
            except errors.Invalid as error:
                raise errors.Invalid(error.code, _placed(error.mistakes, read.origins)) from None
            return said, read.not_kept

    said, not_kept = _ended(carried_out())
    if as_json:
        typer.echo(json_line(said | {"not_kept": [each._asdict() for each in not_kept]}))
        return
    _tell_changed(said["changed"])
    _tell_not_kept(not_kept)


@app.command(help=_("Decir qué cambiaría un archivo, sin cambiar nada; sin archivo, revisar lo que hay."))
def check(
    path: Annotated[Path | None, typer.Argument(metavar="PATH", help=_("Como en «import»."))] = None,
    as_json: AsJson = False,
) -> None:
    """Check a file, or the catalogue that is there."""
    given = None if path is None else _given(path)

    async def looked() -> tuple[changes.Plan, list[NotKept]]:
        async with open_context() as context, context.database.connection() as connection:
            items = await store.current(connection)
            if given is None:
                return plan(items, {}), []
            read = given(items)
            planned = plan(items, read.message)
            wrong = [*read.mistakes, *_placed(planned.mistakes, read.origins)]
            return changes.Plan(planned.changed, wrong), read.not_kept

    planned, not_kept = _ended(looked())
    if as_json:
        wrong = [{"pointer": each.pointer, "rule": each.rule, "detail": each.detail} for each in planned.mistakes]
        told = {"changed": codes_of(planned.changed), "not_kept": [each._asdict() for each in not_kept]}
        typer.echo(json_line(told | {"mistakes": wrong}))
    else:
        _tell_not_kept(not_kept)
        if not planned.mistakes:
            _tell_changed(codes_of(planned.changed))
    if planned.mistakes:
        _refuse(planned.mistakes)


@app.command(help=_("Escribir el catálogo en una carpeta nueva."))
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help=_("Carpeta nueva o vacía."))],
    format: Annotated[Format, typer.Option(help=_("hsds-json, hsds-csv o yaml."))] = Format.json,
    on: On = None,
) -> None:
    """Write the catalogue into a folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail(_("La carpeta {path} no está vacía: elija otra.").format(path=folder), 2)
    items = asyncio.run(_items(_day(on)))
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for name, content in _files(format, items):
        (folder / name).write_bytes(content)
        written += 1
    typer.echo(_("{n} archivos en {folder}.").format(n=written, folder=folder))


@app.command(help=_("Mostrar el catálogo: cuántas entradas, las de una clase, o una."))
def show(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help=_("Clase, por ejemplo services."))] = None,
    code: Annotated[str | None, typer.Argument(metavar="CODE", help=_("Código."))] = None,
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Show the catalogue."""
    items = asyncio.run(_items(_day(on)))
    if kind is None:
        counts = {each: len(items[each]) for each in KINDS}
        typer.echo(json_line(counts) if as_json else "\n".join(f"{each}: {n}" for each, n in counts.items()))
        return
    _known(kind)
    if code is None:
        if as_json:
            typer.echo(json_line([_entry(each, item) for each, item in items[kind].items()]))
            return
        table = Table(_("Código"), _("Nombre"), _("Revisión"), _("Desde"), _("Demostración"))
        for each, item in items[kind].items():
            shown = _("sí") if item.document.get("demonstration") else ""
            row = (each, item.document["es"], str(item.revision), f"{item.at.astimezone(PARAGUAY):%Y-%m-%d}", shown)
            table.add_row(*map(cell, row))
        screen().print(table)
        return
    if code not in items[kind]:
        fail(_("No hay nada en vigor con ese número o código."), 1)
    entry = _entry(code, items[kind][code])
    typer.echo(json_line(entry) if as_json else _as_yaml(entry).rstrip())


@app.command(help=_("Mostrar cada revisión de una entrada: quién, cuándo, y qué cambió."))
def history(kind: Kind, code: Code, as_json: AsJson = False) -> None:
    """Show the revisions of an entry."""
    _known(kind)

    async def read() -> list[Any]:
        async with open_context() as context, context.database.connection() as connection:
            return await store.history(connection, kind, code)

    revisions = asyncio.run(read())
    if not revisions:
        fail(_("No hay nada en vigor con ese número o código."), 1)
    if as_json:
        typer.echo(json_line([changes.revision_json(each) for each in revisions]))
        return
    for each in revisions:
        who = each.actor if each.institution is None else f"{each.institution}/{each.actor}"
        typer.echo(printable(f"{each.number:>3} {each.at.astimezone(PARAGUAY):%Y-%m-%d %H:%M:%S} {who}"))
        for field, (before, after) in changes.differences(each).items():
            typer.echo(printable(f"    {field}: {_value(before)} → {_value(after)}"))


def _given(path: Path) -> Callable[[dict[str, dict[str, Item]]], _Read]:
    """Read a file or folder; what it would change depends on the catalogue that is there."""
    native, tables = _native(path), Tables()
    try:
        if native is None:
            tables = read_path(path)
    except Unreadable as error:
        text = _("El archivo {path} no se puede leer. {why}").format(path=error.name, why=error.why)
        fail(printable(text.rstrip()), 2)
    except OSError:
        fail(_("No se puede leer el archivo {path}.").format(path=path), 2)

    def over(items: dict[str, dict[str, Item]]) -> _Read:
        if native is not None:
            return _Read(native, [], [], {})
        return _Read(*read_tables(tables, items))

    return over


def _native(path: Path) -> dict[str, Any] | None:
    """Return a change in our own words, from YAML or from JSON whose members are kinds of ours; None otherwise."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in _YAML | {".json"}:
        return None
    try:
        content = path.read_bytes()
        value = parse_json(orjson.dumps(yaml.load(content, Loader=yaml.CSafeLoader)) if suffix in _YAML else content)
    except (yaml.YAMLError, orjson.JSONEncodeError, SchemaError):
        if suffix not in _YAML:
            return None
        fail(_("El archivo {path} no es YAML que se pueda usar.").format(path=path), 2)
    except OSError:
        fail(_("No se puede leer el archivo {path}.").format(path=path), 2)
    if suffix in _YAML or (isinstance(value, dict) and value and value.keys() <= set(KINDS)):
        return dict(value) if isinstance(value, dict) else {"": value}
    return None


def _ended(doing: Coroutine[Any, Any, _DoneT]) -> _DoneT:
    try:
        return asyncio.run(doing)
    except errors.Invalid as error:
        _refuse(error.mistakes)
    except SchemaError as error:
        _refuse(errors.Mistake(each.rule, each.pointer or "/", each.message) for each in error.violations)


def _placed(found: Iterable[errors.Mistake], origins: dict[str, str]) -> list[errors.Mistake]:
    """Say of each mistake where in the file its entry stands, too."""
    made = []
    for each in found:
        origin = origins.get("/".join(each.pointer.split("/")[:3]))
        made.append(each if origin is None else replace(each, detail=f"({origin}) {each.detail}"))
    return made


def _refuse(found: Iterable[errors.Mistake]) -> NoReturn:
    for each in found:
        choices = " " + _("Los hay: {codes}").format(codes=" ".join(each.allowed)) if each.allowed else ""
        typer.echo(printable(f"{each.pointer}: {each.detail}{choices}"), err=True)
    fail(_("Nada se cambió."), 2)


async def _items(on: date | None) -> dict[str, dict[str, Item]]:
    async with open_context() as context, context.database.connection() as connection:
        return await store.current(connection, on=on)


def _files(format: Format, items: dict[str, dict[str, Item]]) -> Iterator[tuple[str, bytes]]:
    match format:
        case Format.json:
            yield from json_files(tables_of(items))
        case Format.csv:
            yield from csv_files(tables_of(items))
        case Format.yaml:
            whole = {kind: {code: item.document for code, item in items[kind].items()} for kind in KINDS}
            yield "catalogue.yaml", _as_yaml(whole).encode()


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=120)


def _entry(code: str, item: Item) -> dict[str, Any]:
    return {"code": code, "revision": item.revision, "since": item.at.isoformat(), **item.document}


def _tell_changed(changed: dict[str, list[str]]) -> None:
    if not changed:
        typer.echo(_("Nada cambia: el catálogo ya dice eso."))
    for kind, codes in changed.items():
        typer.echo(printable(f"{kind}: {' '.join(codes)}"))


def _tell_not_kept(found: list[NotKept]) -> None:
    reasons = {
        "no-place": _("el catálogo no tiene lugar para esto"),
        "names-a-person": _("nombra a una persona, y el catálogo es público"),
        "no-district": _("sin distrito de Paraguay reconocible"),
        "not-physical": _("no es un lugar al que se va"),
        "not-active": _("no está activo"),
        "unknown-location": _("su lugar no se tomó"),
        "unknown-service": _("su servicio no se tomó"),
        "unknown-programme": _("su programa no está"),
        "unreadable": _("el valor no se puede usar"),
        "assumed": _("faltaba; se puso el valor usual"),
    }
    if found:
        typer.echo(_("No se toma ({n}):").format(n=len(found)), err=True)
    for each in found[:_LINES]:
        typer.echo(printable(f"  {each.where}: {reasons[each.rule]}"), err=True)
    if len(found) > _LINES:
        typer.echo(_("  … con --json están todos."), err=True)


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise typer.BadParameter(" | ".join(KINDS), param_hint="KIND")


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        fail(_("Se esperaba un día como 2026-11-20, no {text}").format(text=printable(text or "")), 2)


def _value(value: Any) -> str:
    return "∅" if value is None else orjson.dumps(value).decode()
