"""The policy in memory: agreements, suspended institutions, roles and emergencies, indexed for it and kept fresh.

``PolicyStore`` reloads it whenever PostgreSQL announces a change and at least every :data:`REFRESH_S` seconds; a
policy that could not be confirmed for :data:`MAX_AGE_S` seconds is not handed out, so no suspension is missed longer.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import psycopg
import structlog
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from consent import tables
from consent.emergency import unreviewed_since
from consent.errors import InvalidAgreement, PolicyUnavailable
from consent.models import (
    REFERRAL_FIELDS,
    REPLIES,
    REPLY_FIELDS,
    SERVICE_PREFIX,
    Agreement,
    AgreementRef,
    Assignment,
    parse_agreement,
)
from consent.roles import read_assignments, read_compartments
from schemas.canonical import canonical_json, sha256
from schemas.codes import code_list

REFRESH_S = 30
MAX_AGE_S = 60
_LOAD_TIMEOUT_S = 10
_RETRY_S = 1

_log = structlog.get_logger(__name__)
_REFERRAL_LABELS = MappingProxyType(dict.fromkeys(REFERRAL_FIELDS, "identifying"))
_REPLY_LABELS = MappingProxyType(dict.fromkeys(REPLY_FIELDS, "identifying"))


class LabelRule(NamedTuple):
    """What a label of fields asks beyond an agreement (``labels.yaml``); no ``bases``: any that the agreement has."""

    label: str
    compartment: bool
    minimum_assurance: int
    bases: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One active agreement seen from one dataset: what the decision compares a request with.

    ``agreed`` are the fields it lists, ``visible`` those of them whose label it covers, ``guarded`` the visible ones
    whose label asks for more; ``norms`` maps basis to norm, ``treatments`` the fields that leave reduced.
    """

    ref: AgreementRef
    agreed: frozenset[str]
    visible: frozenset[str]
    guarded: Mapping[str, LabelRule]
    sensitive: Mapping[str, str]
    purposes: frozenset[str]
    norms: Mapping[str, str]
    channels: frozenset[str]
    roles: frozenset[str]
    minimum_assurance: int
    starts_at: datetime
    ends_at: datetime | None
    treatments: Mapping[str, str]
    volume_per_day: int | None
    retention_days: int | None
    scope_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything but the facts about the person that a decision depends on. Built by :func:`build_policy`.

    ``grants`` is keyed by (requester, holder, dataset), each entry ordered by agreement code. ``assignments`` says who
    holds which granted role, by (institution, user), ``excluded_by`` in which roles nobody acts who holds one;
    ``compartments`` which an institution's role holds, by (institution, role); ``unreviewed`` since when a user's
    oldest emergency waits for review, by (institution, user). ``reductions`` gives per dataset the identifying fields
    and how they look to a purpose that needs no identity (``None``: not at all). ``version`` is a short hash of the
    content, the same in every process that holds the same.
    """

    agreements: Mapping[str, Agreement]
    suspended: frozenset[str]
    roles_by_action: Mapping[str, frozenset[str]]
    granted_roles: frozenset[str]
    excluded_by: Mapping[str, frozenset[str]]
    intermediaries: frozenset[str]
    assignments: Mapping[tuple[str, str], tuple[Assignment, ...]]
    compartments: Mapping[tuple[str, str], frozenset[str]]
    unreviewed: Mapping[tuple[str, str], datetime]
    purposes: frozenset[str]
    unidentified: frozenset[str]
    bases: frozenset[str]
    public_duty: frozenset[str]
    emergency_bases: frozenset[str]
    identity_datasets: frozenset[str]
    reductions: Mapping[str, Mapping[str, str | None]]
    grants: Mapping[tuple[str, str, str], tuple[Grant, ...]]
    version: str


def dataset_labels(dataset: str) -> Mapping[str, str]:
    """Return field → label of a dataset, a ``service:CODE`` or ``replies``; empty for a dataset nobody declared."""
    if dataset.startswith(SERVICE_PREFIX):
        return _REFERRAL_LABELS
    if dataset == REPLIES:
        return _REPLY_LABELS
    declared = code_list("datasets").get(dataset)
    return {} if declared is None else {field: spec["label"] for field, spec in declared["fields"].items()}


def label_rules() -> dict[str, LabelRule]:
    """Return the labels that ask for more than an agreement, each with what it asks."""
    return {
        label: LabelRule(
            label, bool(spec.get("compartment")), spec.get("minimum_assurance", 1), frozenset(spec.get("bases", ()))
        )
        for label, spec in code_list("labels").items()
        if spec.get("compartment") or spec.get("minimum_assurance") or spec.get("bases")
    }


def build_policy(
    agreements: Iterable[Agreement],
    suspended: Iterable[str] = (),
    *,
    assignments: Mapping[tuple[str, str], tuple[Assignment, ...]] | None = None,
    compartments: Mapping[tuple[str, str], frozenset[str]] | None = None,
    unreviewed: Mapping[tuple[str, str], datetime] | None = None,
) -> Policy:
    """Index agreements (one version of each code) and what the tables say, with the code lists shipped."""
    by_code = {agreement.code: agreement for agreement in sorted(agreements, key=lambda each: each.code)}
    stopped = frozenset(suspended)
    held, opened = dict(assignments or {}), dict(compartments or {})
    roles, bases, datasets = code_list("roles"), code_list("legal-bases"), code_list("datasets")
    purposes, labels = code_list("purposes"), code_list("labels")
    roles_by_action: dict[str, set[str]] = defaultdict(set)
    for role, spec in roles.items():
        for action in spec["actions"]:
            roles_by_action[action].add(role)
    content = {
        "agreements": [_content(agreement) for agreement in by_code.values()],
        "suspended": sorted(stopped),
        "roles": roles,
        "purposes": purposes,
        "bases": bases,
        "datasets": datasets,
        "labels": labels,
        "assignments": sorted([*key, sorted(map(str, each))] for key, each in held.items()),
        "compartments": sorted([*key, sorted(each)] for key, each in opened.items()),
    }
    return Policy(
        agreements=MappingProxyType(by_code),
        suspended=stopped,
        roles_by_action=MappingProxyType({action: frozenset(holders) for action, holders in roles_by_action.items()}),
        granted_roles=frozenset(role for role, spec in roles.items() if "granted_by" in spec),
        excluded_by=MappingProxyType(_exclusions(roles)),
        intermediaries=frozenset(role for role, spec in roles.items() if spec.get("acts_for_others")),
        assignments=MappingProxyType(held),
        compartments=MappingProxyType(opened),
        unreviewed=MappingProxyType(dict(unreviewed or {})),
        purposes=frozenset(purposes),
        unidentified=frozenset(code for code, spec in purposes.items() if spec.get("identified") is False),
        bases=frozenset(bases),
        public_duty=frozenset(code for code, spec in bases.items() if spec["public_duty"]),
        emergency_bases=frozenset(code for code, spec in bases.items() if spec.get("emergency")),
        identity_datasets=frozenset(code for code, spec in datasets.items() if spec.get("identity")),
        reductions=MappingProxyType({code: _reductions(spec["fields"]) for code, spec in datasets.items()}),
        grants=MappingProxyType(_index(by_code.values())),
        version=sha256(canonical_json(content)).hex()[:12],
    )


def _exclusions(roles: Mapping[str, Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """Return which roles nobody may act in who holds a role: duties are kept apart in both directions."""
    return {
        role: frozenset(spec.get("excludes", ()))
        | {other for other, others in roles.items() if role in others.get("excludes", ())}
        for role, spec in roles.items()
    }


def _reductions(fields: Mapping[str, Mapping[str, str]]) -> dict[str, str | None]:
    return {name: spec.get("reduced") for name, spec in fields.items() if spec["label"] == "identifying"}


def _content(agreement: Agreement) -> dict[str, object]:
    return agreement.document() | {
        "code": agreement.code,
        "version": agreement.version,
        "status": agreement.status,
        "valid_from": agreement.valid_from.astimezone(UTC).isoformat(),
        "valid_to": None if agreement.valid_to is None else agreement.valid_to.astimezone(UTC).isoformat(),
    }


def _index(agreements: Iterable[Agreement]) -> dict[tuple[str, str, str], tuple[Grant, ...]]:
    found: dict[tuple[str, str, str], list[Grant]] = defaultdict(list)
    rules = label_rules()
    sensitive = frozenset(label for label, spec in code_list("labels").items() if spec.get("sensitive"))
    for agreement in agreements:
        if agreement.status != "active":
            continue
        for dataset, fields in agreement.datasets.items():
            labels = dataset_labels(dataset)
            visible = frozenset(field for field in fields if labels.get(field) in agreement.labels)
            grant = Grant(
                ref=AgreementRef(agreement.code, agreement.version),
                agreed=fields,
                visible=visible,
                guarded={field: rules[labels[field]] for field in visible if labels[field] in rules},
                sensitive={field: labels[field] for field in visible if labels[field] in sensitive},
                purposes=agreement.purposes,
                norms={agreed.basis: agreed.norm for agreed in agreement.bases},
                channels=frozenset(agreement.channels),
                roles=agreement.roles,
                minimum_assurance=agreement.minimum_assurance,
                starts_at=agreement.valid_from,
                ends_at=agreement.valid_to,
                treatments={
                    field: how for field, how in agreement.treatments.get(dataset, {}).items() if how != "keep"
                },
                volume_per_day=agreement.volume_per_day,
                retention_days=agreement.retention_days,
                scope_sha256=agreement.scope_sha256(),
            )
            found[agreement.requester, agreement.holder, dataset].append(grant)
    return {key: tuple(grants) for key, grants in found.items()}


async def read_agreements(conn: AsyncConnection, code: str | None = None) -> list[Agreement]:
    """Read the version that counts of every agreement (or of one): the newest that is past negotiation.

    A draft or proposal leaves the version before it in force. A row that cannot be read is logged and left out, so
    it permits nothing.
    """
    row = tables.agreement.c
    query = (
        select(row.code, row.version, row.document, row.status, row.valid_from, row.valid_to)
        .where(row.status.not_in(("draft", "proposed", "signed")))
        .ext(distinct_on(row.code))
        .order_by(row.code, row.version.desc())
    )
    if code is not None:
        query = query.where(row.code == code)
    agreements = []
    for found, version, document, status, valid_from, valid_to in await conn.execute(query):
        stored = {"code": found, "version": version, "status": status, "valid_from": valid_from, "valid_to": valid_to}
        try:
            agreements.append(parse_agreement(document | stored))
        except InvalidAgreement as error:
            _log.error("agreement_unreadable", code=found, version=version, field=error.field)
    return agreements


class PolicyStore:
    """Holds the policy in force for one process."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._policy: Policy | None = None
        self._confirmed_at = 0.0

    @property
    def current(self) -> Policy:
        """The policy in force; raise :class:`PolicyUnavailable` when it was not confirmed in the last minute."""
        if self._policy is None or time.monotonic() - self._confirmed_at > MAX_AGE_S:
            raise PolicyUnavailable("the policy was not read from the database in time")
        return self._policy

    async def load(self, conn: AsyncConnection) -> Policy:
        """Read the policy from the tables and make it current."""
        asked_at = time.monotonic()
        agreements = await read_agreements(conn)
        state = tables.institution_state.c
        suspended = await conn.scalars(select(state.code).where(state.suspended_at.is_not(None)))
        policy = build_policy(
            agreements,
            suspended,
            assignments=await read_assignments(conn),
            compartments=await read_compartments(conn),
            unreviewed=await unreviewed_since(conn),
        )
        if self._policy is None or self._policy.version != policy.version:
            _log.info("policy_loaded", version=policy.version, agreements=len(agreements))
        self._policy, self._confirmed_at = policy, asked_at
        return policy

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the policy fresh until ``stop`` is set, over one connection of its own; reconnect when that is lost."""
        refreshing = asyncio.create_task(self._refresh_forever())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((refreshing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if refreshing.done():
                await refreshing
        finally:
            for task in (refreshing, stopping):
                task.cancel()
            await asyncio.gather(refreshing, stopping, return_exceptions=True)

    async def _refresh_forever(self) -> None:
        while True:
            try:
                await self._follow()
            except (SQLAlchemyError, psycopg.Error, OSError, TimeoutError) as error:
                _log.warning("policy_connection_lost", error=type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    async def _follow(self) -> None:
        async with self._own_connection() as (conn, listener):
            await conn.execute(text(f"LISTEN {tables.POLICY_CHANNEL}"))
            while True:
                async with asyncio.timeout(_LOAD_TIMEOUT_S):
                    await self.load(conn)
                async for _notice in listener.notifies(timeout=REFRESH_S, stop_after=1):
                    pass

    @asynccontextmanager
    async def _own_connection(self) -> AsyncIterator[tuple[AsyncConnection, psycopg.AsyncConnection[Any]]]:
        """Take a connection out of the pool: held for the life of the process, and nobody else must go on listening."""
        listener: object = None
        try:
            async with self._engine.connect() as conn:
                await conn.execution_options(isolation_level="AUTOCOMMIT")
                listener = (await conn.get_raw_connection()).driver_connection
                if not isinstance(listener, psycopg.AsyncConnection):
                    raise TypeError("the policy store needs the psycopg driver")
                await conn.run_sync(lambda connection: connection.detach())
                yield conn, listener
        finally:
            # SQLAlchemy's asyncio layer leaves a detached connection of this driver open.
            if isinstance(listener, psycopg.AsyncConnection):
                await listener.close()
