"""A gateway seen through the GovStack Consent building block by the systems of three institutions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import yaml

from adapters.simulator.population import SimPerson
from adapters.simulator.population import generate as simulate
from consent.models import Actor
from consent.roles import grant_role
from gateway import embedded
from gateway.api.app import create_app
from gateway.api.consent_bb import INDIVIDUAL_HEADER, PREFIX
from gateway.cli.context import open_context
from gateway.cli.db import bring_up
from gateway.cli.demo.processes import Processes
from gateway.cli.population import register_population
from gateway.cli.token import request_token
from gateway.clock import utc_now
from gateway.identity import service as identity
from gateway.identity.assertions import operator_assertion
from gateway.identity.keys import ECKey, read_public_key
from gateway.identity.models import Issuer
from gateway.runtime import Runtime, open_runtime
from gateway.settings import Settings, load_settings
from gateway.vault import write_secret
from schemas.ids import uuid7
from tests.acceptance.bad_input import new_key

PERSONS, SEED = 200, 7
MACHINE = Actor(institution=None, user="uid:0")
#: An agreement on consent: SNPP may ask PN-IDENT for identities.
AGREEMENT = "DEMO-SNPP-IDENT"
SCOPES = frozenset({"agreements.manage", "consents.manage", "audit.read", "disclosures.create"})
# Whom each institution's system names as its operator, and what they are there.
STAFF = {"admin": "administrator", "officer": "data-protection-officer", "auditor": "auditor"}
SIGNED = {"signature": "MEUCIQ-firma", "verificationMethod": "ES256", "verificationSignedBy": "huella-de-la-clave"}


@dataclass
class BuildingBlock:
    """A running gateway; SNPP and PN-IDENT have an agreement on consent, MTESS is no party of it."""

    runtime: Runtime
    http: httpx.AsyncClient
    issuer: Issuer
    people: list[SimPerson]
    keys: dict[str, bytes] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    async def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        of: str = "SNPP",
        staff: str | None = None,
        individual: str | None = None,
        **query: Any,
    ) -> httpx.Response:
        """Call an operation as an institution's system, maybe with one of its staff, or for a person."""
        headers = {"Authorization": f"Bearer {self.tokens[of]}", "Idempotency-Key": str(uuid7())}
        if staff is not None:
            headers["X-SIIS-Operator"] = operator_assertion(
                ECKey.import_key(self.keys[of]),
                client_id=f"bb-{of.lower()}",
                issuer=self.issuer,
                operator=staff,
                roles=frozenset({STAFF[staff]}),
                acr="2",
                now=utc_now(),
            )
        if individual is not None:
            headers[INDIVIDUAL_HEADER] = individual
        prefix = "" if path.startswith("/api/") else PREFIX
        return await self.http.request(method, prefix + path, json=body, headers=headers, params=query)

    async def told(self, *arguments: Any, **more: Any) -> dict[str, Any]:
        """Call an operation that succeeds; return its body."""
        answer = await self.ask(*arguments, **more)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def adult(self) -> SimPerson:
        """Take an adult of the register whom no other test uses."""
        grown = (p for p in self.people if p.cedula and not p.deceased_on and p.birth_date < date(2000, 1, 1))
        person = next(grown)
        self.people.remove(person)
        return person

    async def individual(self, person: SimPerson) -> str:
        """Present a person; return the id of the Individual."""
        body = {"individual": {"externalId": person.cedula, "externalIdType": "cedula"}}
        told = await self.told("POST", "/service/individual/", body)
        return str(told["individual"]["id"])

    async def signed(self, individual: str, **changes: Any) -> dict[str, Any]:
        """Have a person sign a draft; return the pair to be stored."""
        path = "/service/individual/record/consent-record/draft/"
        draft = await self.told("POST", path, individualId=individual, dataAgreementId=AGREEMENT)
        return {"consentRecord": draft["consentRecord"], "signature": {**draft["signature"], **SIGNED, **changes}}

    async def discloses(self, person: SimPerson) -> int:
        """Return the status of SNPP's question, on consent, about a person."""
        question = {
            "subject": {"system": "cedula", "value": person.cedula},
            "dataset": "identity",
            "fields": ["given_names"],
            "purpose": "service-provision",
            "basis": "consent",
        }
        return (await self.ask("POST", "/api/v1/disclosures", question)).status_code


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[BuildingBlock]:
    """Open a gateway in this process over its own database, with the civil register as a process beside it."""
    settings = load_settings(data_dir=folder)
    processes = Processes(settings.data_dir / "logs")
    try:
        await asyncio.to_thread(_prepare, settings, processes)
        keys = await _populate(settings)
        async with open_runtime(settings) as runtime:
            transport = httpx.ASGITransport(create_app(runtime))
            async with httpx.AsyncClient(transport=transport, base_url=settings.issuer, timeout=30) as http:
                everybody = [member for home in simulate(PERSONS, SEED) for member in home.members]
                made = BuildingBlock(runtime, http, Issuer(settings.issuer), everybody, keys)
                for institution, key in keys.items():
                    client_id = f"bb-{institution.lower()}"
                    made.tokens[institution] = await request_token(http, made.issuer, client_id, key)
                yield made
    finally:
        await asyncio.to_thread(processes.end)
        await asyncio.to_thread(embedded.stop, settings.data_dir)


def _prepare(settings: Settings, processes: Processes) -> None:
    arguments = ["--persons", str(PERSONS), "--seed", str(SEED), "--state", str(settings.data_dir / "i.sqlite")]
    processes.start_institution("identificaciones", arguments)
    register = processes.institution("identificaciones")
    settings.connections_file.write_text(yaml.safe_dump({register.name: {"address": register.address}}))
    write_secret(settings.producer_secrets_dir / "identificaciones_password", b"simulated-password")
    bring_up(settings, demonstration=True)


async def _populate(settings: Settings) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    async with open_context(settings) as context:
        await register_population(context, simulate(PERSONS, SEED), PERSONS, SEED, lambda _done: None)
        for institution in ("SNPP", "PN-IDENT", "MTESS"):
            keys[institution], public = new_key()
            async with context.database.transaction() as connection:
                await identity.add_client(
                    connection,
                    client_id=f"bb-{institution.lower()}",
                    name=institution,
                    institution=institution,
                    scopes=SCOPES,
                    assurance=2,
                    key=read_public_key(public),
                    now=utc_now(),
                )
                for user, role in STAFF.items():
                    await grant_role(
                        connection, MACHINE, institution=institution, user=user, role=role, valid_to=None, at=utc_now()
                    )
    return keys
