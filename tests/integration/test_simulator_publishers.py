"""The simulated institutions that publish whole registers over SFTP: files to the letter, and spoilt ones."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncssh
import pytest
from test_simulator import PASSWORD, Simulator

from adapters.simulator.dnit import check_digit
from adapters.simulator.dossier import archive
from adapters.simulator.pension_cases import CASES
from adapters.simulator.publisher import in_latin_1
from schemas.ids import ruc_check_digit

EVERYBODY = archive(300, 1)
NAMED = {case.name: case.person for case in CASES}
#: The 35 columns in the order the secretariat publishes them.
PAYROLL = (
    "anho,mes,nivel,descripcion_nivel,entidad,descripcion_entidad,oee,descripcion_oee,documento,nombres,apellidos,"
    "funcion,estado,carga_horaria,anho_ingreso,sexo,discapacidad,tipo_discapacidad,fuente_financiamiento,objeto_gasto,"
    "concepto,linea,categoria,cargo,presupuestado,devengado,movimiento,lugar,fecha_nacimiento,fec_ult_modif,uri,"
    "fecha_acto,correo,profesion,motivo_movimiento"
)
SCHOOLS = (
    "anio,codigo_establecimiento,codigo_departamento,nombre_departamento,codigo_distrito,nombre_distrito,codigo_zona,"
    "nombre_zona,codigo_barrio_localidad,nombre_barrio_localidad,direccion,coordenadas_y,coordenadas_x,latitud,longitud"
)


class Folder:
    """A publisher, and the files it shows."""

    def __init__(self, name: str) -> None:
        self.simulator = Simulator(name)

    async def files(self, folder: str = "/publicado") -> dict[str, bytes]:
        host, port = self.simulator.address.removeprefix("sftp://").split(":")
        known = asyncssh.import_known_hosts(f"[{host}]:{port} {self.simulator.ready['host_key']}\n")
        found = {}
        async with (
            asyncssh.connect(
                host, int(port), username="siis", password=PASSWORD, known_hosts=known, config=None, agent_path=None,
                client_keys=None,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):  # fmt: skip
            for name in sorted(str(name) for name in await sftp.listdir(folder)):
                if not name.startswith("."):
                    async with sftp.open(f"{folder}/{name}", "rb") as file:
                        found[name] = bytes(await file.read())
        return found

    @contextmanager
    def spoilt(self) -> Iterator[None]:
        """Publish what went wrong, and afterwards again what is right."""
        self.simulator.switch(garbage=1)
        self.simulator.control.post("/_control/publish").raise_for_status()
        yield
        self.simulator.control.post("/_control/publish").raise_for_status()


@pytest.fixture(scope="module")
def publisher() -> Iterator[Callable[[str], Folder]]:
    running: dict[str, Folder] = {}

    def find(name: str) -> Folder:
        if name not in running:
            running[name] = Folder(name)
        return running[name]

    yield find
    ends = {name: folder.simulator.stop() for name, folder in running.items()}
    assert ends == dict.fromkeys(running, (0, b"", b""))


def unpacked(content: bytes) -> tuple[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        [name] = packed.namelist()
        return name, packed.read(name)


def taxpayers(files: dict[str, bytes]) -> list[list[str]]:
    lines = [line for content in files.values() for line in unpacked(content)[1].decode().split("\n") if line]
    return [line.split("|") for line in lines]


def wrong_share(rows: list[list[str]]) -> float:
    return sum(ruc_check_digit(row[0]) != int(row[2]) for row in rows) / len(rows)


async def test_dnit_publishes_ten_files_with_a_pipe_behind_the_last_field(publisher: Any) -> None:
    files = await publisher("dnit").files()
    assert list(files) == [f"ruc{digit}.zip" for digit in range(10)]
    assert [unpacked(content)[0] for content in files.values()] == [f"ruc{digit}.txt" for digit in range(10)]
    rows = taxpayers(files)
    assert {(len(row), row[5]) for row in rows} == {(6, "")}
    assert {row[4] for row in rows} <= {"ACTIVO", "CANCELADO", "BLOQUEADO", "SUSPENSION TEMPORAL"}
    for name, content in files.items():
        assert {row[0].rstrip("ABC")[-1] for row in taxpayers({name: content})} <= {name[3]}
    found = {row[0]: row for row in rows}
    assert (
        found["29900018"][1:] == ["CHAPARRO O'LEARY, EFRAÍN", "3", "COE5612055", "ACTIVO", ""] or found["29900018"][4]
    )
    assert found["29900019"][4] == "CANCELADO"
    assert wrong_share(rows) == 0


async def test_dnit_spoilt_has_more_wrong_check_digits_than_a_register_may(publisher: Any) -> None:
    dnit = publisher("dnit")
    with dnit.spoilt():
        assert wrong_share(taxpayers(await dnit.files())) > 0.02
    assert wrong_share(taxpayers(await dnit.files())) == 0


@pytest.mark.parametrize(("ruc", "digit"), [("88888801", 5), ("1", 9), ("12345A", 2), ("1234567A", 2), ("80000000", 5)])
def test_the_institutions_own_check_digit_is_the_one_of_our_reader(ruc: str, digit: int) -> None:
    assert check_digit(ruc) == ruc_check_digit(ruc) == digit


async def test_sfp_publishes_35_columns_in_latin_1_with_their_md5(publisher: Any) -> None:
    files = await publisher("sfp").files()
    name = "funcionarios_2026_10.csv"
    assert list(files) == [f"{name}.zip", f"{name}.zip.md5"]
    digest = hashlib.md5(files[f"{name}.zip"], usedforsecurity=False).hexdigest()
    assert files[f"{name}.zip.md5"].decode() == f"{digest}  {name}.zip\n"
    member, content = unpacked(files[f"{name}.zip"])
    assert member == name
    with pytest.raises(UnicodeDecodeError):
        content.decode("utf-8")
    text = content.decode("iso-8859-1")
    assert text.split("\r\n")[0] == PAYROLL
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    mine = [row for row in rows if row["documento"] == NAMED["on-payroll"].cedula]
    assert [(row["objeto_gasto"], row["devengado"]) for row in mine] == [
        ("111", "4250000"), ("131", "212500"), ("133", "425000"),
    ]  # fmt: skip
    assert {row["documento"] for row in rows} == {number for number, item in EVERYBODY.items() if item.post}
    assert max(Counter(row["documento"] for row in rows).values()) == 3


def test_a_letter_latin_1_does_not_have_loses_its_tilde() -> None:
    assert in_latin_1("Ñasaindy Ko'ẽ, Ag̃aite, Ysypo'ỹ, Porã") == "Ñasaindy Ko'e, Agaite, Ysypo'y, Porã".encode(
        "latin-1"
    )


async def test_sfp_spoilt_is_not_the_file_of_its_checksum(publisher: Any) -> None:
    sfp = publisher("sfp")
    with sfp.spoilt():
        files = await sfp.files()
        [packed, side] = files.values()
        assert hashlib.md5(packed, usedforsecurity=False).hexdigest() not in side.decode()


async def test_mec_publishes_the_header_of_its_own_programs(publisher: Any) -> None:
    mec = publisher("mec-establecimientos")
    content = (await mec.files())["establecimientos_2026.csv"].decode()
    header, *rows = list(csv.reader(io.StringIO(content, newline="")))
    assert ",".join(header) == SCHOOLS
    schools = {row[1] for row in rows}
    assert {item.enrolment.school for item in EVERYBODY.values() if item.enrolment} <= schools
    assert len(schools) == len(rows) > 200
    with mec.spoilt():
        spoilt = (await mec.files())["establecimientos_2026.csv"].decode()
        assert spoilt.split("\r\n")[0] != SCHOOLS


async def test_the_pension_roll_has_a_title_and_somebody_dead(publisher: Any) -> None:
    mds = publisher("mds-padron")
    content = (await mds.files("/pension"))["padron_pension_2026_10.csv"].decode("utf-8-sig")
    title, header, *rows = content.split("\r\n")
    assert title.startswith("PADRÓN DE LA PENSIÓN UNIVERSAL")
    assert header == "cedula;nombres;apellidos;departamento;distrito;fecha_ingreso;estado;ultimo_pago"
    on_roll = {row.split(";")[0] for row in rows if row}
    assert on_roll == {number for number, item in EVERYBODY.items() if item.pension}
    assert NAMED["dead-on-roll"].cedula in on_roll
    [name] = await mds.files("/tekopora")
    assert name == "tekopora_02_11_2026_03_00_00.csv"


async def test_the_host_key_and_the_password_are_asked_for(publisher: Any) -> None:
    host, port = publisher("sfp").simulator.address.removeprefix("sftp://").split(":")
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            host, int(port), username="siis", password="x", known_hosts=None, config=None, agent_path=None,
            client_keys=None,
        )  # fmt: skip
