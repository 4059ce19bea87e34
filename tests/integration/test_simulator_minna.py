"""The simulated MINNA: an SFTP folder with CSV in and CSV out, its bad rows, faults and restarts."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncssh
import pytest
from test_simulator import PASSWORD, QUIET, Simulator, until, with_fate

from adapters.simulator.behaviour import plan
from adapters.simulator.casebook import CaseBook
from adapters.simulator.minna_files import IN_COLUMNS, OUT_COLUMNS, write_answers

GOOD = (
    "abrazo;UTGS;cedula;4123456;Ñasaindy;Agüero Yvyra'i;01/05/2015;F;11;1116;protection-gap;;routine;"
    "2026-11-22T10:00:00Z;22/12/2026;"
)


def upload(*rows: str) -> bytes:
    return "\r\n".join([";".join(IN_COLUMNS), *rows, ""]).encode()


def read(content: bytes) -> list[dict[str, str]]:
    with io.StringIO(content.decode("cp1252"), newline="") as text:
        reader = csv.DictReader(text, delimiter=";", strict=True)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == OUT_COLUMNS
    return rows


class Minna:
    """A client of the folder, with the host key it was told."""

    def __init__(self, *arguments: str) -> None:
        self.simulator = Simulator("minna", *arguments)
        host, port = self.simulator.address.removeprefix("sftp://").split(":")
        self.host, self.port, self.host_key = host, int(port), self.simulator.ready["host_key"]

    def connect(self, password: str = PASSWORD) -> Any:
        known = asyncssh.import_known_hosts(f"[{self.host}]:{self.port} {self.host_key}\n")
        return asyncssh.connect(
            self.host, self.port, username="siis", password=password, known_hosts=known, config=None, agent_path=None,
            client_keys=None,
        )  # fmt: skip

    @asynccontextmanager
    async def session(self) -> AsyncIterator[asyncssh.SFTPClient]:
        async with self.connect() as connection, connection.start_sftp_client() as folder:
            yield folder

    async def put(self, name: str, content: bytes) -> None:
        async with self.session() as folder:
            async with folder.open(f"/entrada/.{name}.tmp", "wb") as file:
                await file.write(content)
            await folder.rename(f"/entrada/.{name}.tmp", f"/entrada/{name}")

    async def files(self) -> dict[str, bytes]:
        async with self.session() as folder:
            names = [str(name) for name in await folder.listdir("/salida") if not str(name).startswith(".")]
            found = {}
            for name in sorted(names):
                async with folder.open(f"/salida/{name}", "rb") as file:
                    found[name] = bytes(await file.read())
            return found

    async def rows(self) -> list[dict[str, str]]:
        """Read every row of every file."""
        return [row for content in (await self.files()).values() for row in read(content)]

    def answered(self, referrals: int) -> None:
        """Wait until so many referrals are taken and nothing is left to answer."""

        def done() -> bool:
            ledger = self.simulator.ledger()
            return len(ledger["received"]) == referrals and ledger["answers"]["pending"] == 0

        until(done)


@pytest.fixture
def minna(tmp_path: Path) -> Iterator[Minna]:
    minna = Minna("--state", str(tmp_path / "minna.sqlite"))
    minna.simulator.switch(**QUIET)
    yield minna
    assert minna.simulator.stop() == (0, b"", b"")


async def test_referrals_come_in_once_and_answers_go_out_in_files_of_2005(minna: Minna) -> None:
    ids = [str(uuid4()) for _ in range(30)]
    await minna.put("uno.csv", upload(*(f"{referral_id};{GOOD}" for referral_id in ids)))
    minna.answered(30)
    before = await minna.files()
    late = str(uuid4())
    await minna.put("dos.csv", upload(*(f"{referral_id};{GOOD}" for referral_id in [*ids[:5], late])))
    minna.answered(31)
    assert minna.simulator.ledger()["received"] == dict.fromkeys([*ids, late], 1)

    after = await minna.files()
    assert before.items() < after.items()  # what was written is never written again
    assert all(re.fullmatch(r"contrarreferencias_\d{8}_\d{6}_\d{4}\.csv", name) for name in after)
    assert all(content.count(b"\n") == content.count(b"\r\n") > 1 for content in after.values())
    text = b"".join(after.values()).decode("cp1252")
    assert "ñ" in text.lower()

    rows = await minna.rows()
    junk = [row for row in rows if row["id_mensaje"].startswith("MINNA-X")]
    assert 1 <= len(junk) <= 3
    expected = {
        step.message_id: (referral_id, step.event)
        for referral_id in [*ids, late]
        for step in plan("minna", 1, referral_id)
    }
    told = {row["id_mensaje"]: (row["id_referencia"], row["evento"]) for row in rows if row not in junk}
    assert told == expected
    assert all(re.fullmatch(r"\d{2}/\d{2}/\d{4}", row["fecha"]) for row in rows)


async def test_reads_only_whole_csv_files_and_names_those_it_cannot_read(minna: Minna) -> None:
    referral_id, unusable = str(uuid4()), str(uuid4())
    await minna.put("uno.tmp", upload(f"{uuid4()};{GOOD}"))
    await minna.put("dos.csv", "id;otra\r\n".encode("utf-16"))
    spoilt = GOOD.replace("01/05/2015", "31/02/2015")
    await minna.put("tres.csv", upload(f"{referral_id};{GOOD}", f";{GOOD}", f"{unusable};{spoilt}"))
    minna.answered(2)
    assert set(minna.simulator.ledger()["received"]) == {referral_id, unusable}
    declined = [row for row in await minna.rows() if row["id_referencia"] == unusable]
    assert [(row["evento"], row["motivo"]) for row in declined][:1] == [("RECHAZADA", "FALTAN_DOCUMENTOS")]
    async with minna.session() as folder:
        left = {str(name) for name in await folder.listdir("/entrada")} - {".", ".."}
    assert left == {"uno.tmp", "dos.ilegible"}


async def test_lets_in_only_the_password_and_shows_only_its_folder(minna: Minna) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await minna.connect("x")
    async with minna.session() as folder:
        assert {str(name) for name in await folder.listdir("/../..")} - {".", ".."} == {
            "entrada",
            "salida",
            "procesado",
        }


async def test_refuses_drops_and_drops_after_the_effect(minna: Minna) -> None:
    minna.simulator.switch(fail_503=1)
    with pytest.raises(asyncssh.SFTPPermissionDenied):
        await minna.put("uno.csv", upload(f"{uuid4()};{GOOD}"))
    minna.simulator.switch(reset=1)
    with pytest.raises((asyncssh.Error, OSError)):
        await minna.put("uno.csv", upload(f"{uuid4()};{GOOD}"))
    assert minna.simulator.ledger()["received"] == {}
    minna.simulator.switch(after_effect_reset=1)
    referral_id = str(uuid4())
    with pytest.raises((asyncssh.Error, OSError)):
        await minna.put("uno.csv", upload(f"{referral_id};{GOOD}"))
    minna.answered(1)
    await minna.put("uno.csv", upload(f"{referral_id};{GOOD}"))
    assert minna.simulator.ledger()["received"] == {referral_id: 1}


async def test_waits_as_long_as_told(minna: Minna) -> None:
    minna.simulator.switch(latency_ms=60_000)
    connection = await minna.connect()
    folder = await connection.start_sftp_client()
    listing = asyncio.create_task(folder.listdir("/salida"))
    done, _ = await asyncio.wait({listing}, timeout=0.1)
    assert not done
    # Only cutting the connection ends the wait: a cancelled listing still waits for the server to close its handle.
    connection.abort()
    with pytest.raises(asyncssh.Error):
        await listing
    await connection.wait_closed()
    minna.simulator.switch(latency_ms=0)
    assert await minna.files() == {}


async def test_garbage_and_duplicates_are_files_beside_the_true_one(minna: Minna) -> None:
    minna.simulator.switch(garbage=1, duplicate=1)
    referral_id = str(uuid4())
    await minna.put("uno.csv", upload(f"{referral_id};{GOOD}"))
    minna.answered(1)
    first, *others = (await minna.files()).values()
    assert first.startswith(b"<!DOCTYPE html>")
    told = Counter(row["id_mensaje"] for content in others for row in read(content))
    assert {step.message_id for step in plan("minna", 1, referral_id)} <= set(told)
    assert 2 in told.values()


async def test_killed_and_restarted_keeps_key_ledger_and_answers(tmp_path: Path) -> None:
    state = str(tmp_path / "minna.sqlite")
    first = Minna("--state", state)
    first.simulator.switch(accept_after_s=0, outcome_after_s=0.3)
    referral_id = with_fate("minna", "ACEPTADA", "RESULTADO")
    await first.put("uno.csv", upload(f"{referral_id};{GOOD}"))
    until(lambda: first.simulator.ledger()["answers"]["given"])
    first.simulator.kill()
    second = Minna("--state", state)
    assert second.host_key == first.host_key
    assert second.simulator.ledger()["received"] == {referral_id: 1}
    second.answered(1)
    told = {row["id_mensaje"] for row in await second.rows()}
    assert {step.message_id for step in plan("minna", 1, referral_id)} <= told
    numbers = [int(name.removesuffix(".csv").rpartition("_")[2]) for name in await second.files()]
    assert numbers == list(range(1, len(numbers) + 1))
    second.simulator.kill()


def test_one_row_more_in_fifty_is_bad_in_each_of_three_ways() -> None:
    book = CaseBook(None)
    for number in range(400):
        book.take(str(number), plan("minna", 1, str(number)), (0, 0))
    # One open answer per referral is due at a time, so these are 400 rows from 400 referrals.
    answers = book.due(400)
    rows = read(write_answers(answers, 0, 5))
    assert rows == read(write_answers(answers[:170], 0, 5)) + read(write_answers(answers[170:], 170, 5))
    bad = [row for row in rows if row["id_mensaje"].startswith("MINNA-X")]
    assert (len(rows), len(bad)) == (408, 8)
    kinds = Counter(
        "date" if row["fecha"].startswith("31/02/") else "referral" if not row["id_referencia"] else row["evento"]
        for row in bad
    )
    assert kinds == {"date": 3, "referral": 3, "ARCHIVADA": 2}
    book.close()
