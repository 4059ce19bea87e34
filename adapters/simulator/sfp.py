"""SFP: the payroll of the public service, a zipped CSV a month with its MD5, one row for each component of a pay."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from adapters.simulator.publisher import Publisher, archive_of, in_latin_1, table
from adapters.simulator.records import Dossier, Post
from adapters.simulator.settings import Settings

COLUMNS = (
    "anho", "mes", "nivel", "descripcion_nivel", "entidad", "descripcion_entidad", "oee", "descripcion_oee",
    "documento", "nombres", "apellidos", "funcion", "estado", "carga_horaria", "anho_ingreso", "sexo",
    "discapacidad", "tipo_discapacidad", "fuente_financiamiento", "objeto_gasto", "concepto", "linea", "categoria",
    "cargo", "presupuestado", "devengado", "movimiento", "lugar", "fecha_nacimiento", "fec_ult_modif", "uri",
    "fecha_acto", "correo", "profesion", "motivo_movimiento",
)  # fmt: skip
_YEAR, _MONTH = 2026, 10
_SEXES = {"F": "FEMENINO", "M": "MASCULINO"}


class Sfp(Publisher):
    """The secretariat of the public service."""

    name = "sfp"

    def register(self, *, spoilt: bool) -> Mapping[str, bytes]:
        """Return last month's payroll and its checksum; spoilt, the file is cut short and the checksum is not."""
        name = f"funcionarios_{_YEAR}_{_MONTH}.csv"
        packed = archive_of(name, in_latin_1(table(COLUMNS, self._rows(), ",")))
        side = f"{hashlib.md5(packed, usedforsecurity=False).hexdigest()}  {name}.zip\n".encode()
        content = packed[: len(packed) // 2] if spoilt else packed
        return {f"publicado/{name}.zip": content, f"publicado/{name}.zip.md5": side}

    def _rows(self) -> Iterator[tuple[object, ...]]:
        for dossier in self.archive.values():
            if dossier.post is not None:
                yield from _pay(dossier, dossier.post)


def _pay(dossier: Dossier, post: Post) -> Iterator[tuple[object, ...]]:
    """Write a person's pay: salary or fee, family allowance, and a bonus for some; amounts are whole guaraníes."""
    contracted = post.contract == "CONTRATADO"
    components = [("144", "JORNALES") if contracted else ("111", "SUELDOS")]
    amounts = [post.salary]
    if not contracted:
        components += [("131", "SUBSIDIO FAMILIAR"), ("133", "BONIFICACION POR RESPONSABILIDAD")]
        amounts += [post.salary // 20, post.salary // 10]
    for (line, concept), amount in zip(components, amounts, strict=True):
        yield _row(dossier, post, line, concept, amount)


def _row(dossier: Dossier, post: Post, line: str, concept: str, amount: int) -> tuple[object, ...]:
    person = dossier.person
    values: dict[str, object] = {
        "anho": _YEAR,
        "mes": _MONTH,
        "nivel": post.level[0],
        "descripcion_nivel": post.level[1],
        "entidad": post.entity[0],
        "descripcion_entidad": post.entity[1],
        "oee": "1",
        "descripcion_oee": post.office,
        "documento": person.cedula,
        "nombres": person.given_names.upper(),
        "apellidos": person.surnames.upper(),
        "funcion": post.position.upper(),
        "estado": post.contract,
        "carga_horaria": "DE 07:00 A 15:00",
        "anho_ingreso": post.since,
        "sexo": _SEXES[person.sex],
        "discapacidad": "NO" if person.disability == "none" else "SI",
        "fuente_financiamiento": "10",
        "objeto_gasto": line,
        "concepto": concept,
        "linea": "1200",
        "categoria": "D3K",
        "cargo": post.position.upper(),
        "presupuestado": amount,
        "devengado": amount,
        "movimiento": "CONTINUIDAD",
        "lugar": person.locality,
        "fecha_nacimiento": person.birth_date.strftime("%Y/%m/%d"),
        "fec_ult_modif": "2026/11/03",
        "profesion": person.profession,
    }
    return tuple(values.get(column) or "" for column in COLUMNS)


def build(settings: Settings) -> Sfp:
    """Return the institution, ready to serve."""
    return Sfp(settings)
