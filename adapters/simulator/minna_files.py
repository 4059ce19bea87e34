"""The two CSV files of MINNA: referrals as uploaded, counter-referrals as written, bad rows included."""

from __future__ import annotations

import csv
import io
from datetime import date, datetime
from random import Random

from adapters.simulator.casebook import Answer

IN_COLUMNS = (
    "id_referencia", "servicio", "origen", "tipo_documento", "numero_documento", "nombres", "apellidos",
    "fecha_nacimiento", "sexo", "departamento", "distrito", "motivo", "detalle", "prioridad", "emitida", "limite",
    "recibo",
)  # fmt: skip
NOTICE_COLUMNS = ("id_aviso", "id_referencia", "tipo", "detalle", "recibo")
OUT_COLUMNS = (
    "id_mensaje", "id_referencia", "evento", "fecha", "resultado", "motivo", "detalle", "lugar", "comprobante",
)  # fmt: skip
_REQUIRED = ("servicio", "origen", "nombres", "apellidos", "motivo")
_ROWS_PER_BAD_ROW = 50


class UnreadableFile(ValueError):
    """An uploaded file is not UTF-8, or does not have the columns agreed."""


def read_notices(content: bytes) -> list[tuple[str, str, str, str]] | None:
    """Return each notice's id, referral, kind and receipt; None for a file that does not hold notices."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=";")
        if tuple(reader.fieldnames or ()) != NOTICE_COLUMNS:
            return None
        return [(row["id_aviso"], row["id_referencia"], row["tipo"], row["recibo"] or "") for row in reader]
    except (UnicodeDecodeError, csv.Error):
        return None


def read_referrals(content: bytes) -> list[tuple[str, bool, str]]:
    """Return each referral's id, whether its row can be worked with, and its receipt; passes over rows without an id.

    Raises :class:`UnreadableFile`.
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=";")
    except UnicodeDecodeError as error:
        raise UnreadableFile("encoding") from error
    if tuple(reader.fieldnames or ()) != IN_COLUMNS:
        raise UnreadableFile("columns")
    try:
        return [(row["id_referencia"], _usable(row), row["recibo"] or "") for row in reader if row["id_referencia"]]
    except csv.Error as error:
        raise UnreadableFile("rows") from error


def _usable(row: dict[str, str]) -> bool:
    # A row with a column too many has the key None, one too few the value None.
    if None in row or None in row.values() or not all(row[name] for name in _REQUIRED):
        return False
    try:
        datetime.strptime(row["fecha_nacimiento"] or "01/01/2000", "%d/%m/%Y")
    except ValueError:
        return False
    return True


def write_answers(answers: list[Answer], written_before: int, seed: int) -> bytes:
    """Write a file of counter-referrals: cp1252, semicolons, CRLF, and about one bad row more for fifty good ones.

    ``written_before`` counts the good rows of earlier files, so that bad rows fall in the same places whatever the
    batches. The first is among the first ten rows, for small demonstrations to have one too.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
    writer.writerow(OUT_COLUMNS)
    place = Random(f"bad rows of {seed}").randrange(10)
    for number, answer in enumerate(answers, start=written_before):
        row = _row(answer)
        writer.writerow(row.values())
        if number % _ROWS_PER_BAD_ROW == place:
            writer.writerow(_spoilt(row, number).values())
    return text.getvalue().encode("cp1252")


def _row(answer: Answer) -> dict[str, str]:
    step, detail = answer.step, answer.step.detail
    if answer.appointment:
        detail = f"Cita el {answer.appointment:%d/%m/%Y} a las {answer.appointment:%H:%M}, señal de la guía"
    values = (
        step.message_id, answer.referral_id, step.event, _day(answer.day), step.outcome, step.reason, detail,
        step.place, step.proof,
    )  # fmt: skip
    return dict(zip(OUT_COLUMNS, values, strict=True))


def _spoilt(row: dict[str, str], number: int) -> dict[str, str]:
    """Copy a row as a clerk might: a day that does not exist, no referral id, or an event nobody agreed on."""
    forms = (
        {"fecha": f"31/02/{row['fecha'][-4:]}"},
        {"id_referencia": ""},
        {"evento": "ARCHIVADA"},
    )
    return {**row, "id_mensaje": f"MINNA-X{number:07d}", **forms[number // _ROWS_PER_BAD_ROW % len(forms)]}


def _day(day: date) -> str:
    return day.strftime("%d/%m/%Y")
