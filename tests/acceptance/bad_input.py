"""What the attacks on the HTTP interface share: messages to spoil, what a problem must look like, what the log says."""

from __future__ import annotations

import gettext
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.simulator.population import SimPerson
from audit.search import recent
from gateway.cli.demo.clients import Caller
from gateway.cli.token import request_token
from gateway.identity import service
from gateway.identity.keys import read_public_key
from schemas import text
from schemas.ids import uuid7
from tests.house import House, until

DISCLOSURES, REFERRALS, STATUS = "/api/v1/disclosures", "/api/v1/referrals", "/api/v1/protection-status/query"
DUTY = {"purpose": "service-access-determination", "basis": "official-authority"}
# A title in Spanish is one that has an English translation.
_ENGLISH = gettext.translation("siis", text._LOCALE, languages=["en"])


def adults(house: House) -> list[SimPerson]:
    """Living persons with a cédula and more than twenty years; the first thirty belong to the journeys' tests."""
    year = datetime.now(UTC).year
    return [p for p in house.people if p.cedula and not p.deceased_on and year - p.birth_date.year > 20][30:]


def subject(value: str | None, system: str = "cedula") -> dict[str, Any]:
    return {"system": system, "value": value}


def asking(person: SimPerson, **changes: Any) -> dict[str, Any]:
    return {"subject": subject(person.cedula), "dataset": "identity", "fields": ["given_names"], **DUTY, **changes}


def referring(person: SimPerson, service: str = "health-control", **changes: Any) -> dict[str, Any]:
    return {
        "subject": subject(person.cedula),
        "service": service,
        "reason": {"code": "protection-gap"},
        **DUTY,
        **changes,
    }


def replying(event: str, message_id: str, **more: Any) -> dict[str, Any]:
    return {"event": event, "message_id": message_id, "occurred_on": date(2026, 11, 20).isoformat(), **more}


def problem(
    answer: httpx.Response, status: int, code: str, *, pointer: str | None = None, secrets: Iterable[str] = ()
) -> dict[str, Any]:
    """Hold an answer to what every problem is (RFC 9457), and to telling nothing of ``secrets``; return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["type"] == f"urn:siis:problem:{code}", answer.text
    assert told["status"] == status
    assert told["detail"], "nothing says what to do"
    assert _ENGLISH.gettext(told["title"]) != told["title"], "the title is no Spanish text of ours"
    if pointer is not None:
        assert pointer in [item["pointer"] for item in told["errors"]], answer.text
        assert all(item["detail"] for item in told["errors"])
    nothing_leaks(answer, secrets)
    return told


def nothing_leaks(answer: httpx.Response, secrets: Iterable[str] = ()) -> None:
    """No answer names the programs behind it, shows a traceback or repeats what was sent."""
    assert not {"server", "x-powered-by", "via"} & set(answer.headers)
    for word in ("Traceback", "site-packages", ".py", "psycopg", "SELECT ", *secrets):
        assert word not in answer.text, word


async def entries(house: House, kind: str, since: UUID) -> list[dict[str, Any]]:
    """Return the log's entries of one type made after an id of ours, the newest first, with their detail."""
    async with house.context() as context, context.database.connection() as connection:
        found = await recent(connection, context.epochs, 1000, type=kind)
    return [{"id": str(entry.entry_id), **(entry.detail or {})} for entry in found if entry.entry_id > since]


def new_key() -> tuple[bytes, bytes]:
    """Make a private key on P-256; return it and its public part, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


async def newcomer(house: House, institution: str, *scopes: str) -> Caller:
    """Register a client system while the gateway runs; return it with a token."""
    private, public = new_key()
    client_id = f"newcomer-{uuid7()}"
    async with house.context() as context, context.database.transaction() as connection:
        await service.add_client(
            connection,
            client_id=client_id,
            name="Newcomer",
            institution=institution,
            scopes=frozenset(scopes),
            assurance=2,
            key=read_public_key(public),
            now=datetime.now(UTC),
        )
    caller = Caller(house.http, house.issuer, client_id, private)

    async def known() -> bool:
        try:
            caller.token = await request_token(house.http, house.issuer, client_id, private)
        except httpx.HTTPStatusError:
            return False
        return True

    # The directory would read by itself only after a minute.
    await until(known, within_s=20)
    return caller


async def get(house: House, caller: Caller, path: str, method: str = "GET") -> httpx.Response:
    return await house.http.request(
        method, house.issuer.url + path, headers={"Authorization": f"Bearer {await bearer(caller)}"}
    )


async def bearer(caller: Caller) -> str:
    """The caller's token, which it asks for with its first request."""
    if not caller.token:
        await caller.post("/api/v1/nothing", {})
    return caller.token


def logs_are_quiet(house: House) -> None:
    """What the processes wrote to their logs holds no traceback, no defect and nobody's cédula or name."""
    cedulas = {person.cedula for person in house.people if person.cedula}
    names = {f"{person.given_names} {person.surnames}" for person in house.people}
    for name in ("serve", "worker"):
        log = house.processes.log_of(name).read_text(encoding="utf-8", errors="replace")
        assert "Traceback" not in log, log[:2000]
        assert "request.defect" not in log
        assert not cedulas & set(re.findall(r"\b\d{5,8}\b", log))
        assert not [each for each in names if each in log]
