"""Bundles over years, under witnesses, with a time stamp: made from a real log and verified as a stranger would."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from audit_examples import EPOCHS, SIGNER, in_the_year, integrate, scalar
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from test_time_stamps import Authority, serving

from audit import integrator
from audit.errors import AuditUnavailable
from audit.service import AuditLog
from audit.verify import check_bundle, check_checkpoints, format_key, main, parse_note, read_hashes, read_policy
from audit.witness import Witness, signature_line
from gateway import errors, evidence
from gateway.database import Database
from gateway.dossier.bundles import Bundle, Bundles
from gateway.witnesses.policy import policy_text
from gateway.witnesses.time_stamp import TimeStamps, read_roots
from schemas.ids import uuid7
from tests.integration.audit_database import AuditDatabase, fresh_audit_database
from tests.witnessing import database_of

REFERRAL = UUID("019a0000-0000-7000-8000-00000000000a")
WITNESS = Witness("defensoria.example/testigo", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
_COSIGN = text(
    """
    INSERT INTO audit.cosignature (log, size, witness, line, at) VALUES (:log, :size, :witness, :line, now())
    ON CONFLICT DO NOTHING
    """
)


@dataclass
class Room:
    """A log with its writer."""

    made: AuditDatabase
    database: Database
    audit: AuditLog
    person: UUID

    async def happened(self, kind: str, year: int, **groups: Any) -> None:
        """Put an entry of the referral into a year's log."""
        exchange = {"referral": str(REFERRAL), **groups.pop("exchange", {})}
        at = datetime(year, 1 if year > 2026 else 12, 31, 12, 0, tzinfo=UTC)
        entry = evidence.entry(
            kind, "done", at=at, policy_version="v1", subject=self.person, exchange=exchange, **groups
        )
        await self.audit.append(entry)
        await integrate(self.made.app, year=year)

    async def born(self, year: int = 2026) -> None:
        """Create the referral."""
        actor = {"client": "utgs-1", "institution": "UTGS", "user": "ana", "user_verified": True}
        what = {"holder": "MDS", "dataset": "service:universal-pension"}
        await self.happened("referral.created", year, actor=actor, what=what, exchange={"recipient": "MDS"})

    async def make(self, year: int, *, witnesses: Path | None = None, patience_s: float = 20.0) -> Bundle:
        """Make the bundle while the log goes on being numbered."""
        bundles = Bundles(
            database=self.database,
            audit=self.audit,
            epochs=EPOCHS,
            policy=lambda years: policy_text(SIGNER, years, witnesses),
            now=in_the_year(year),
            patience_s=patience_s,
        )
        async with self._numbering(year):
            return await bundles.make(REFERRAL, {"channel": "command-line", "user": "uid:0"})

    @asynccontextmanager
    async def _numbering(self, year: int) -> AsyncIterator[None]:
        stop = asyncio.Event()
        work = asyncio.create_task(
            integrator.run(self.database.engine, SIGNER, self.audit, stop, 0.05, in_the_year(year))
        )
        try:
            yield
        finally:
            stop.set()
            await work


@pytest_asyncio.fixture
async def room() -> AsyncIterator[Room]:
    async with fresh_audit_database() as made:
        database = database_of(made)
        audit = AuditLog(database.engine, EPOCHS, "gateway")
        yield Room(made, database, audit, uuid7())
        await audit.close()
        await database.close()


def unpacked(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """Write the ZIP and what is in it."""
    (folder / "x.zip").write_bytes(bundle.content)
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as archive:
        archive.extractall(folder)
        return {name: folder / name for name in archive.namelist()}


async def test_a_referral_that_goes_over_new_year_is_proven_by_the_logs_of_both_years(
    room: Room, tmp_path: Path
) -> None:
    await room.born()
    # What waits at midnight still belongs to the year that ends.
    await integrate(room.made.app, year=2027)
    await room.happened("referral.transmitted", 2027, exchange={"recipient": "MDS"})
    made = await room.make(2027)
    files = unpacked(made, tmp_path)
    assert made.records == 2
    assert {"checkpoint.txt", "checkpoint-2026.txt"} <= files.keys()
    reports, others = check_bundle(tmp_path / "x.zip", read_policy(files["policy.txt"]))
    assert (set(reports["entradas.jsonl"].heads), others) == ({"2026", "2027"}, [])
    page = files["historia.html"].read_text(encoding="utf-8")
    assert all(place in page for place in ("Entrada 0/2026,", "Entrada 1/2027,"))
    places = [line.split('"log":')[1][:4] for line in files["entradas.jsonl"].read_text().splitlines()]
    assert places == ["2026", "2027"]


async def test_without_the_witnesses_that_the_policy_asks_for_there_is_no_bundle(room: Room, tmp_path: Path) -> None:
    await room.born()
    known = tmp_path / "testigos.txt"
    key = WITNESS.verifier
    known.write_text(f"witness uno {format_key(key.name, key.kind, key.key)} http://127.0.0.1:1\nquorum uno\n")
    with pytest.raises(AuditUnavailable):
        await room.make(2026, witnesses=known, patience_s=0.5)
    stop = asyncio.Event()
    signing = asyncio.create_task(cosigning(room, stop))
    made = await room.make(2026, witnesses=known)
    stop.set()
    await signing
    files = unpacked(made, tmp_path)
    reports, _others = check_bundle(tmp_path / "x.zip", read_policy(files["policy.txt"]))
    assert set(reports["entradas.jsonl"].heads["2026"].witnesses) == {"uno"}
    assert key.name in files["checkpoint.txt"].read_text()


async def cosigning(room: Room, stop: asyncio.Event) -> None:
    """Cosign every checkpoint as it appears."""
    while not stop.is_set():
        async with room.made.admin.begin() as connection:
            for log, size, note in await connection.execute(text("SELECT log, size, note FROM audit.checkpoint")):
                line = signature_line(WITNESS, parse_note(note)[0], 1_800_000_000)
                name = f"{WITNESS.name}+{WITNESS.verifier.id.hex()}"
                await connection.execute(_COSIGN, {"log": log, "size": size, "witness": name, "line": line.strip()})
        await asyncio.sleep(0.05)


async def test_a_time_stamp_that_covers_the_referral_goes_along_and_is_joined_to_the_checkpoint(
    room: Room, tmp_path: Path
) -> None:
    await room.born(datetime.now(UTC).year)
    year = datetime.now(UTC).year
    authority = Authority(tmp_path)
    with serving(authority) as url:
        stamps = TimeStamps(room.database, url, read_roots(tmp_path / "root.pem"), now=lambda: datetime.now(UTC))
        assert await stamps.stamp_if_due()
    # The log goes on after it.
    for _number in range(3):
        await room.audit.append(evidence.entry("log.read", "done", at=datetime.now(UTC), policy_version="none"))
    await integrate(room.made.app, year=year)
    files = unpacked(await room.make(year), tmp_path)
    await asyncio.to_thread(authority.run, f"ts -verify -data sello-{year}.txt -in sello-{year}.tsr -CAfile root.pem")
    read_me = files["LEEME.txt"].read_text(encoding="utf-8")
    [told] = [line for line in read_me.splitlines() if "verify.py checkpoints" in line]
    words = [str(tmp_path / word) if "." in word else word for word in told.split("checkpoints", 1)[1].split()]
    assert main(["checkpoints", *words]) == 0
    stamped, head = files[f"sello-{year}.txt"].read_text(), files["checkpoint.txt"].read_text()
    hashes = read_hashes(files[f"sello-{year}.consistencia.txt"])
    assert check_checkpoints(stamped, head, read_policy(files["sello-policy.txt"]), hashes)
    assert check_bundle(tmp_path / "x.zip")[1] == []


async def test_what_still_waits_for_its_number_is_waited_for(room: Room) -> None:
    await room.born()
    entry = evidence.entry(
        "referral.transmitted",
        "done",
        at=datetime(2026, 12, 31, 13, 0, tzinfo=UTC),
        policy_version="v1",
        subject=room.person,
        exchange={"referral": str(REFERRAL), "recipient": "MDS"},
    )
    await room.audit.append(entry)
    assert (await room.make(2026)).records == 2


async def test_an_unknown_referral_makes_no_bundle_and_no_entry(room: Room) -> None:
    with pytest.raises(errors.NotFound):
        await room.make(2026)
    assert await scalar(room.made.admin, "SELECT count(*) FROM audit.entry WHERE type = 'log.bundled'") == 0
