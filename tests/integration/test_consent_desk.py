"""What staff and persons may do about consents and protection, each change and each look with its entry in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from integration.consent_answers import AT, CHILD, GROWN, new_consent
from integration.governed import hold, migrated, opened
from sqlalchemy import select

from audit.keys import Epochs
from audit.search import recent
from audit.service import AuditLog
from consent import agreements
from consent.models import Caller
from consent.policy import PolicyStore
from consent.tables import role_assignment
from gateway import errors
from gateway.catalogue.service import load_shipped
from gateway.commands import Command
from gateway.database import Database
from gateway.governance.consents import Consents
from gateway.governance.people import Named
from gateway.governance.protection import FlagChange, NewMandate, Protection
from gateway.governance.service import Governance
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.vault import open_vault
from schemas.ids import uuid7

KEK = bytes(range(32))
EPOCHS = Epochs(1, {1: KEK})
OFFICER = "data-protection-officer"


def staff(institution: str, role: str = "operator", user: str = "ana") -> Caller:
    return Caller(
        client_id=f"{institution}-app",
        institution=institution,
        user=user,
        user_verified=True,
        roles=frozenset({role}),
        assurance=2,
    )


def citizen(person: UUID) -> Caller:
    return Caller(client_id="portal", institution="MITIC", person=person, roles=frozenset({"citizen"}), assurance=2)


SNPP, MSPBS, MEC = staff("SNPP"), staff("MSPBS"), staff("MEC")
OFFICER_OF_SNPP, OFFICER_OF_MINNA = (staff(code, OFFICER, "ofi") for code in ("SNPP", "MINNA"))


@dataclass
class Desks:
    consents: Consents
    protection: Protection
    database: Database

    async def newcomer(self, birth_date: date = GROWN) -> tuple[UUID, Named]:
        """Register somebody whom no other test knows."""
        person_id = uuid7()
        cedula = str(int(person_id.hex[-6:], 16) % 90_000_000 + 1_000)
        new = NewPerson(person_id, "Rosa", "Vera", (("cedula", cedula),), birth_date=birth_date)
        async with self.database.transaction() as connection:
            await registry.register(connection, self.consents.vault, [new])
        return person_id, Named("cedula", cedula)

    async def give(self, caller: Caller | None, who: Named | None, **changes: Any) -> UUID:
        done = await self.consents.record(caller, who, new_consent(**changes), state="given")
        return UUID(done.answer["consent"])

    async def entry(self, kind: str, receipt: dict[str, str]) -> Any:
        """Return the entry of a receipt."""
        async with self.database.connection() as connection:
            newest = await recent(connection, EPOCHS, 50, type=kind)
        return next(each for each in newest if str(each.entry_id) == receipt["entry_id"])


@pytest.fixture(scope="module")
def url(folders: Callable[[str], Path]) -> Iterator[str]:
    with migrated(folders("desks")) as address:
        yield address


@pytest.fixture
async def desks(url: str) -> AsyncIterator[Desks]:
    async with opened(url) as database:
        async with database.transaction() as connection:
            vault = await open_vault(connection, KEK)
            await load_shipped(connection)
            await agreements.load_demonstration(connection, at=AT)
            if not await connection.scalar(select(role_assignment.c.id).limit(1)):
                for institution in ("SNPP", "MINNA"):
                    await hold(connection, institution, "ofi", OFFICER)
        audit = AuditLog(database.engine, EPOCHS, "test")
        await audit.start()
        policies = PolicyStore(database.engine)
        async with database.connection() as connection:
            await policies.load(connection)
        governance = Governance(database=database, audit=audit, policies=policies, now=lambda: AT)
        yield Desks(Consents(governance, vault), Protection(governance, vault), database)
        await audit.close()


async def test_what_is_recorded_is_in_the_log_with_the_hash_that_the_receipt_has(desks: Desks) -> None:
    person_id, who = await desks.newcomer()
    done = await desks.consents.record(SNPP, who, new_consent(), state="given")
    looked = await desks.consents.receipt(SNPP, UUID(done.answer["consent"]))
    assert looked.shown["record_sha256"] == done.answer["record_sha256"]
    assert looked.shown["record"]["proof"] == {"reference": "form-17", "recorded_by": "SNPP/ana"}
    given = await desks.entry("consent.given", done.answer["receipt"])
    issued = await desks.entry("consent.receipt", looked.receipt)
    assert given.detail["what"]["record_sha256"] == issued.detail["what"]["record_sha256"]
    assert issued.detail["what"]["text_sha256"] == looked.shown["text_sha256"]
    assert str(person_id) not in str(given.detail) + str(given.envelope)
    assert "form-17" not in str(given.detail)


async def test_a_repeated_command_records_one_consent(desks: Desks) -> None:
    _, who = await desks.newcomer()
    command = Command("SNPP-app", str(uuid7()), b"body")
    first, second = [
        await desks.consents.record(SNPP, who, new_consent(), state="given", command=command) for _ in range(2)
    ]
    assert (first.replayed, second.replayed, first.answer) == (False, True, second.answer)
    assert len((await desks.consents.search(SNPP, who)).shown) == 1


async def test_only_parties_of_the_agreement_see_record_and_end_its_consents(desks: Desks) -> None:
    _, who = await desks.newcomer()
    consent = await desks.give(SNPP, who)
    assert [each["id"] for each in (await desks.consents.search(SNPP, who)).shown] == [str(consent)]
    assert (await desks.consents.search(MEC, who)).shown == []
    assert (await desks.consents.read(staff("PN-IDENT"), consent)).shown["in_force"]
    with pytest.raises(errors.BadRequest) as refused:
        await desks.give(MEC, who)
    assert refused.value.code == "unknown-agreement"
    for nobody in (consent, uuid7()):
        for doing in (
            desks.consents.read(MEC, nobody),
            desks.consents.receipt(MEC, nobody),
            desks.consents.step(MEC, nobody, "withdraw", reason=None),
        ):
            with pytest.raises(errors.NotFound):
                await doing


async def test_an_officer_revokes_and_an_operator_only_withdraws_on_the_persons_word(desks: Desks) -> None:
    _, who = await desks.newcomer()
    consent = await desks.give(SNPP, who)
    with pytest.raises(errors.Denied):
        await desks.consents.step(SNPP, consent, "revoke", reason="order")
    with pytest.raises(errors.BadRequest) as refused:
        await desks.consents.step(OFFICER_OF_SNPP, consent, "revoke", reason="boredom")
    assert set(refused.value.allowed) == {"purpose-ended", "agreement-ended", "order"}
    done = await desks.consents.step(SNPP, consent, "withdraw", reason=None)
    assert (done.answer["reason"], done.answer["ended"]) == ("word-to-officer", [str(consent)])
    with pytest.raises(errors.Conflict):
        await desks.consents.step(OFFICER_OF_SNPP, consent, "revoke", reason="order")


async def test_a_person_handles_their_own_consents_and_nobody_elses(desks: Desks) -> None:
    (me, _), (_, other) = await desks.newcomer(), await desks.newcomer()
    of_other = await desks.give(SNPP, other)
    consent = await desks.give(citizen(me), None, channel="web")
    [mine] = (await desks.consents.search(citizen(me), None)).shown
    assert (mine["id"], mine["in_force"]) == (str(consent), True)
    assert (await desks.consents.search(citizen(me), other)).shown == []
    for doing in (
        desks.give(citizen(me), other),
        desks.consents.read(citizen(me), of_other),
        desks.consents.step(citizen(me), of_other, "withdraw", reason=None),
        desks.protection.object(citizen(me), other, "public-benefit"),
    ):
        with pytest.raises(errors.NotFound):
            await doing
    for doing in (
        desks.consents.step(citizen(me), consent, "revoke", reason="order"),
        desks.consents.record(citizen(me), None, new_consent(), state="requested"),
        desks.protection.flag(citizen(me), FlagChange(subject=other, kind="sealed")),
        desks.protection.flags(citizen(me), None),
        desks.protection.end_representative(citizen(me), uuid7(), step="end", reason="ended"),
    ):
        with pytest.raises(errors.Denied):
            await doing
    done = await desks.consents.step(citizen(me), consent, "withdraw", reason="order")
    assert done.answer["reason"] == "person"
    await desks.protection.object(citizen(me), None, "public-benefit")
    assert [each["purpose"] for each in (await desks.protection.objections(citizen(me), None)).shown] == [
        "public-benefit"
    ]


async def test_a_parent_acts_for_their_child_until_somebody_protects_the_child_from_them(desks: Desks) -> None:
    (_, childs), (mother, mothers) = await desks.newcomer(CHILD), await desks.newcomer()
    with pytest.raises(errors.NotFound):
        await desks.give(citizen(mother), childs)
    new = NewMandate(subject=childs, representative=mothers, kind="parent", proof_reference="birth entry 12")
    with pytest.raises(errors.Denied):
        await desks.protection.add_representative(SNPP, new)
    mandate = (await desks.protection.add_representative(OFFICER_OF_MINNA, new)).answer["representation"]
    consent = await desks.give(citizen(mother), childs)
    shown = (await desks.consents.read(citizen(mother), consent)).shown
    assert (shown["representation"], shown["expires_at"]) == (mandate, "2030-06-02T03:00:00+00:00")
    [listed] = (await desks.protection.representatives(OFFICER_OF_MINNA, childs)).shown
    assert (listed["id"], listed["representative"], listed["in_force"]) == (mandate, str(mother), True)
    flag = FlagChange(subject=childs, kind="aggressor", person=mothers)
    await desks.protection.flag(OFFICER_OF_MINNA, flag)
    for doing in (
        desks.consents.read(citizen(mother), consent),
        desks.consents.step(citizen(mother), consent, "withdraw", reason=None),
        desks.give(citizen(mother), childs),
    ):
        with pytest.raises(errors.NotFound):
            await doing
    await desks.protection.flag(OFFICER_OF_MINNA, flag, lift=True)
    done = await desks.consents.step(citizen(mother), consent, "withdraw", reason=None)
    assert done.answer["reason"] == "representative"
    assert "mandate" not in done.answer
    entry = await desks.entry("consent.withdrawn", done.answer["receipt"])
    assert entry.detail["actor"]["mandate"] == mandate
    await desks.protection.end_representative(
        OFFICER_OF_MINNA, UUID(mandate), step="block", reason="conflict-of-interest"
    )
    assert (await desks.consents.search(citizen(mother), childs)).shown == []


@pytest.mark.parametrize("flag", ["sealed", "court-order", "aggressor"])
async def test_a_protected_person_looks_like_nobody_to_who_is_not_entitled(desks: Desks, flag: str) -> None:
    (person, who), nobody = await desks.newcomer(), Named("cedula", "77777777")
    consent = await desks.give(SNPP, who)
    change = FlagChange(
        subject=who, kind=flag, institution="SNPP" if flag == "aggressor" else None, reference="A.I. 12/2026"
    )
    await desks.protection.flag(OFFICER_OF_MINNA, change)
    for name in (who, nobody):
        assert (await desks.consents.search(SNPP, name)).shown == []
        assert (await desks.protection.objections(SNPP, name)).shown == []
        assert (await desks.protection.representatives(SNPP, name)).shown == []
        for doing in (desks.give(SNPP, name), desks.protection.object(SNPP, name, "public-benefit")):
            with pytest.raises(errors.NotFound) as refused:
                await doing
            assert (refused.value.code, refused.value.pointer) == ("not-found", None)
    with pytest.raises(errors.NotFound):
        await desks.consents.read(SNPP, consent)
    assert len((await desks.consents.search(citizen(person), None)).shown) == 1
    entitled = flag != "aggressor"
    assert len((await desks.consents.search(OFFICER_OF_SNPP, who)).shown) == entitled
    assert [each["kind"] for each in (await desks.protection.flags(OFFICER_OF_MINNA, who)).shown] == [flag]
    await desks.protection.flag(OFFICER_OF_MINNA, change, lift=True)
    assert (await desks.consents.read(SNPP, consent)).shown["id"] == str(consent)


async def test_the_machine_does_everything_and_is_named_in_the_log(desks: Desks) -> None:
    _, who = await desks.newcomer()
    consent = await desks.give(None, who)
    await desks.consents.step(None, consent, "invalidate", reason="proof-false")
    assert (await desks.consents.read(None, consent)).shown["state"] == "invalidated"
    health = "DEMO-MINNA-MSPBS-CONSENT"
    done = await desks.consents.publish(None, agreement=health, version="1", language="es", text="¿Acepta?")
    assert done.answer["changed"]
    [text] = await desks.consents.texts(None, health)
    assert (text.version, text.text) == ("1", "¿Acepta?")
    assert await desks.consents.texts(MEC, health) == []
    assert await desks.consents.texts(MSPBS, health) == [text]
    entry = await desks.entry("consent.text_published", done.answer["receipt"])
    assert entry.detail["actor"]["channel"] == "command-line"


@pytest.mark.parametrize(
    ("who", "changes", "pointer"),
    [
        (Named("cedula", "1.234"), {}, "/subject/value"),
        (None, {}, "/subject"),
        (Named("cedula", "77777777"), {"agreement": "NOBODY-KNOWS-IT"}, "/agreement"),
    ],
)
async def test_a_request_that_cannot_be_is_refused_before_anybody_is_looked_for(
    desks: Desks, who: Named | None, changes: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(errors.BadRequest) as refused:
        await desks.consents.record(SNPP, who, replace(new_consent(), **changes), state="given")
    assert refused.value.pointer == pointer
