"""GovStack Consent BB 1.1.0-rc1: every operation of its OpenAPI answers as it says, on the same records as our own face."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from jsonschema import Draft202012Validator
from sqlalchemy import select, text

from adapters.simulator.population import SimPerson
from adapters.simulator.population import generate as simulate
from audit.search import recent
from consent import people
from consent.models import Actor
from consent.roles import grant_role
from gateway import embedded
from gateway.api.app import create_app
from gateway.api.consent_bb import INDIVIDUAL_HEADER, OPERATIONS, PREFIX
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
from gateway.jobs import job_app
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.runtime import Runtime, open_runtime
from gateway.settings import Settings, load_settings
from gateway.standards.govstack.tables import webhook as webhook_table
from gateway.standards.govstack.webhooks import SIGNATURE_HEADER, Calls, add_task, signature_of
from gateway.vault import write_secret
from schemas.ids import uuid7
from tests.acceptance.bad_input import new_key

pytestmark = pytest.mark.asyncio(loop_scope="module")
PERSONS, SEED = 60, 7
MACHINE = Actor(institution=None, user="uid:0")
AGREEMENT, OUR_CODE = "DEMO-SNPP-IDENT", "SNPP-BB"
SCOPES = frozenset({"agreements.manage", "consents.manage", "audit.read", "disclosures.create"})
# Whom each institution's system names as its operator, and what they are there.
STAFF = {"admin": "administrator", "officer": "data-protection-officer", "auditor": "auditor"}

# Every operation of the building block, by hand: the OpenAPI and the program are both held to this table.
TABLE = """
POST /config/policy/
GET /config/policy/{policyId}/
PUT /config/policy/{policyId}/
DELETE /config/policy/{policyId}/
GET /config/policy/{policyId}/revisions/
GET /config/policies/
POST /config/data-agreement/
GET /config/data-agreement/{dataAgreementId}/
PUT /config/data-agreement/{dataAgreementId}/
DELETE /config/data-agreement/{dataAgreementId}/
GET /config/data-agreements/
POST /config/individual/
GET /config/individual/{individualId}/
GET /config/individuals/
POST /config/webhook/
GET /config/webhook/{webhookId}/
PUT /config/webhook/{webhookId}/
DELETE /config/webhook/{webhookId}/
GET /config/webhooks/
POST /service/individual/
GET /service/individual/{individualId}/
PUT /service/individual/{individualId}/
GET /service/individuals/
GET /service/data-agreement/{dataAgreementId}/
GET /service/policy/{policyId}/
GET /service/verification/data-agreements/
GET /service/verification/consent-records/
GET /service/verification/consent-record/{consentRecordId}/
POST /service/individual/record/data-agreement/{dataAgreementId}/
GET /service/individual/record/data-agreement/{dataAgreementId}/
GET /service/individual/record/data-agreement/{dataAgreementId}/all/
POST /service/individual/record/consent-record/draft/
POST /service/individual/record/consent-record/
GET /service/individual/record/consent-record/
PUT /service/individual/record/consent-record/{consentRecordId}/
POST /service/individual/record/consent-record/{consentRecordId}/signature/
PUT /service/individual/record/consent-record/{consentRecordId}/signature/
DELETE /service/individual/record/
GET /audit/consent-records/
GET /audit/consent-record/{consentRecordId}/
GET /audit/data-agreements/
GET /audit/data-agreement/{dataAgreementId}/
"""
WRITTEN = [tuple(line.split()) for line in TABLE.strip().splitlines()]
WITH_EXTRAS = {"receipt", "revisions"}


@dataclass
class BuildingBlock:
    """A running gateway seen by the systems of three institutions; SNPP and PN-IDENT have an agreement on consent."""

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
        headers = {"Authorization": f"Bearer {self.tokens[of]}"}
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
        signature = {**draft["signature"], **SIGNED, **changes}
        del signature["objectReference"] if "objectReference" in signature else signature["id"]
        return {"consentRecord": draft["consentRecord"], "signature": signature}

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


SIGNED = {"signature": "MEUCIQ-firma", "verificationMethod": "ES256", "verificationSignedBy": "huella-de-la-clave"}


@pytest.fixture(scope="module")
def contract(samples: Path) -> dict[str, Any]:
    """The published OpenAPI."""
    file = samples / "rest" / "govstack-consent" / "api" / "consent-openapi.yaml"
    document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return document


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bb(folders: Callable[[str], Path]) -> AsyncIterator[BuildingBlock]:
    """A gateway in this process over its own database, with the civil register as a process beside it."""
    settings = load_settings(data_dir=folders("govstack"), issuer="http://127.0.0.1:8080")
    processes = Processes(settings.data_dir / "logs")
    try:
        await asyncio.to_thread(_prepare, settings, processes)
        keys = await _populate(settings)
        async with open_runtime(settings) as runtime:
            transport = httpx.ASGITransport(create_app(runtime))
            async with httpx.AsyncClient(transport=transport, base_url=settings.issuer, timeout=30) as http:
                people_of = [member for home in simulate(PERSONS, SEED) for member in home.members]
                made = BuildingBlock(runtime, http, Issuer(settings.issuer), people_of, keys)
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
