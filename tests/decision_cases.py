"""Draws cases for the decision, with plain random numbers because they are many, and makes a case that fails small.

Most requests are what some agreement was made for, with little spoiled, so that permits are common; the policy and
the persons are as untidy as the tables allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from random import Random
from typing import Any
from uuid import UUID

from consent.models import (
    FETCH,
    POLL,
    REFERRAL_FIELDS,
    REPLIES,
    REPLY_FIELDS,
    SEND,
    TAKE,
    AgreedBasis,
    Agreement,
    Assignment,
    Caller,
    ConsentFact,
    EmergencyClaim,
    OpenedGlass,
    RepresentationFact,
    Request,
    RestrictionFact,
    SubjectFacts,
)
from schemas.codes import code_list

AT = datetime(2026, 6, 1, 15, 0, tzinfo=UTC)
_IDS = [UUID(int=0x01980000000070008000000000000000 + n) for n in range(12)]
PERSON, MOTHER, BROTHER, OPERATOR = _IDS[:4]
MANDATES = tuple(_IDS[4:7])

# A dataset that the lists do not ship: none of theirs has the label that asks for a well-known operator.
COMPLAINTS = {
    "es": "Denuncias",
    "en": "Complaints",
    "holder": "MINNA",
    "fields": {
        "cedula": {"es": "Cédula", "en": "Card", "label": "identifying", "reduced": "mask"},
        "kind": {"es": "Tipo", "en": "Kind", "label": "violence"},
        "since": {"es": "Desde", "en": "Since", "label": "child-protection"},
    },
}
DATASETS: dict[str, tuple[str, ...]] = {
    "identity": ("cedula", "given_names", "birth_date", "sex", "profession"),
    "health-controls": ("cedula", "controls", "last_control_kind"),
    "complaints": tuple(COMPLAINTS["fields"]),
    "service:tekopora": REFERRAL_FIELDS[:4],
    REPLIES: REPLY_FIELDS[:3],
}
NAMES = sorted({*chain.from_iterable(DATASETS.values()), "nonsense"})
INSTITUTIONS = ("MDS", "MINNA", "MSPBS")
PURPOSES = ("service-provision", "public-benefit", "official-statistics")
BASES = ("official-authority", "legal-obligation", "consent", "vital-interest")
CODES = ("A", "B", "C", "D")
ROLES = ("operator", "supervisor", "system", "intake", "emergency", "intermediary", "auditor", "citizen")
_USUAL = ("operator", "system", "emergency")
_LABELS = ("economic", "health", "pregnancy", "violence", "child-protection")


def tables() -> dict[str, dict[str, Any]]:
    """Return the code lists that decide, with the one dataset more."""
    read = {name: code_list(name) for name in ("roles", "purposes", "legal-bases", "datasets", "labels")}
    return read | {"datasets": read["datasets"] | {"complaints": COMPLAINTS}}


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a policy is built of."""

    agreements: tuple[Agreement, ...] = ()
    suspended: frozenset[str] = frozenset()
    assignments: Mapping[tuple[str, str], tuple[Assignment, ...]] = field(default_factory=dict)
    compartments: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    unreviewed: Mapping[tuple[str, str], datetime] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One question to the decision."""

    tables: Tables
    request: Request
    facts: SubjectFacts
    used: Mapping[str, int] = field(default_factory=dict)


def draw_tables(random: Random) -> Tables:
    """Draw agreements and all else that a policy is built of."""
    agreements: dict[str, Agreement] = {}
    for code in CODES[: random.choice((1, 2, 2, 3, 4))]:
        before = random.choice(list(agreements.values())) if agreements and random.random() < 0.6 else None
        agreements[code] = _agreement(random, code, before)
    holders = [*((each, "ana") for each in INSTITUTIONS), *((each, "client:core") for each in INSTITUTIONS)]
    # Most may act for others and in emergencies; few hold what excludes their other roles.
    granted = {"emergency": 0.9, "intermediary": 0.9, "administrator": 0.3, "auditor": 0.05}
    return Tables(
        agreements=tuple(agreements.values()),
        suspended=frozenset(_some(random, INSTITUTIONS, 0.015)),
        assignments={
            holder: tuple(Assignment(role, random.choice((None, None, None, _near(random)))) for role in held)
            for holder in holders
            if (held := [role for role, chance in granted.items() if random.random() < chance])
        },
        compartments={
            (institution, role): frozenset(_some(random, _LABELS, 0.6))
            for institution in INSTITUTIONS
            for role in (*_USUAL, "supervisor")
        },
        unreviewed={
            holder: AT - timedelta(hours=random.choice((1, 72, 73, 73))) for holder in _some(random, holders, 0.15)
        },
    )


def _agreement(random: Random, code: str, before: Agreement | None) -> Agreement:
    """Draw an agreement; after ``before``, one about the same exchange that says something else."""
    dataset = random.choice(tuple(DATASETS)) if before is None else next(iter(before.datasets))
    names = DATASETS[dataset]
    covered = [dataset] if random.random() < 0.8 else [dataset, random.choice(tuple(DATASETS))]
    emergency = random.random() < 0.15 and not dataset.startswith(("service:", REPLIES))
    bases = ["vital-interest"] if emergency else _least(random, BASES[:3], 0.7)
    roles = {REPLIES: {"system"}}.get(dataset, {"operator", *_some(random, ("system", "intake", "supervisor"), 0.5)})
    requester, holder = random.sample(INSTITUTIONS, 2) if random.random() < 0.97 else ("MDS", "MDS")
    return Agreement(
        code=code,
        es="Acuerdo",
        en="Agreement",
        requester=requester if before is None else before.requester,
        holder=holder if before is None else before.holder,
        datasets={each: frozenset(_least(random, DATASETS[each], 0.75)) for each in covered},
        purposes=frozenset(_least(random, PURPOSES, 0.6)),
        bases=tuple(AgreedBasis(basis, "norm") for basis in bases),
        channels=frozenset({"api"} | set(_some(random, ("file",), 0.3))),
        minimum_assurance=random.choice((1, 1, 1, 1, 1, 1, 2, 3)),
        labels=frozenset({"identifying", *_some(random, _LABELS, 0.85)}),
        roles=frozenset({"emergency"} if emergency else roles),
        valid_from=AT - timedelta(days=50) if random.random() < 0.95 else _near(random),
        valid_to=None if random.random() < 0.95 else _near(random),
        status=random.choice((*("active",) * 50, "suspended", "draft", "signed")),
        version=random.randint(1, 9),
        treatments={dataset: {name: random.choice(("keep", "district", "age-band", "mask")) for name in names[:2]}}
        if random.random() < 0.25
        else {},
        volume_per_day=random.choice((None, None, None, 2, 5)),
        retention_days=random.choice((None, 30)),
    )


def draw_case(random: Random, drawn: Tables) -> Case:
    """Draw a request that most often fits an agreement, and a person of whom it is mostly permitted."""
    made = random.choice(drawn.agreements)
    dataset = random.choice(tuple(made.datasets))
    request = _request(random, made, dataset)
    facts = _facts(random, drawn, request)
    if random.random() < 0.12:
        name = random.choice(tuple(_SPOILS))
        request = replace(request, **{name: _SPOILS[name](random)})
    if random.random() < 0.15:
        name = random.choice(tuple(_UNFORTUNATE))
        facts = replace(facts, **{name: _UNFORTUNATE[name](random)})
    used = {code: random.randint(0, 6) for code in _some(random, CODES, 0.2)}
    return Case(tables=drawn, request=request, facts=facts, used=used)


def _request(random: Random, made: Agreement, dataset: str) -> Request:
    mediated = random.random() < 0.06
    caller = _caller(random, random.choice(INSTITUTIONS) if mediated else made.requester, made.roles)
    action = {"service:tekopora": SEND, REPLIES: POLL}.get(dataset, FETCH)
    basis = random.choice(made.bases).basis
    if any(agreed.basis == "consent" for agreed in made.bases) and random.random() < 0.25:
        basis = "consent"
    claims = 0.7 if basis == "vital-interest" else 0.1
    claim = EmergencyClaim(reason="danger-to-life", incident=random.choice("12"))
    return Request(
        action=action if random.random() < 0.97 else random.choice((FETCH, SEND, POLL, TAKE)),
        caller=caller,
        holder=made.holder,
        dataset=dataset,
        fields=tuple(dict.fromkeys([*_some(random, sorted(made.datasets[dataset]), 0.9), *_some(random, NAMES, 0.03)])),
        # Statistics seldom, for they open little.
        purpose=max(random.sample(sorted(made.purposes), min(2, len(made.purposes)))),
        basis=basis,
        at=AT,
        on_behalf_of=made.requester if mediated else None,
        agreement=made.code if random.random() < 0.2 else None,
        registers_subject=random.random() < 0.5,
        emergency=claim if random.random() < claims else None,
    )


def _caller(random: Random, institution: str, roles: frozenset[str]) -> Caller:
    more = frozenset(_some(random, ROLES, 0.1))
    if "system" in roles and random.random() < 0.5:
        return Caller(client_id="core", institution=institution, roles=more | {"system"})
    minutes_ago = random.choice((None, -1, 0, 1, 1, 1, 1, 15, 15, 16))
    return Caller(
        client_id="core",
        institution=institution,
        user="ana" if random.random() < 0.9 else "eva",
        user_verified=random.random() < 0.9,
        roles=roles | more,
        assurance=random.choice((1, 2, 3, 3, 3)),
        authenticated_at=None if minutes_ago is None else AT - timedelta(minutes=minutes_ago),
        person=OPERATOR if random.random() < 0.02 else None,
    )


_SPOILS: dict[str, Callable[[Random], Any]] = {
    "agreement": lambda random: random.choice(CODES),
    "holder": lambda random: random.choice(INSTITUTIONS),
    "purpose": lambda random: random.choice((*PURPOSES, "nonsense")),
    "basis": lambda random: random.choice((*BASES, "nonsense")),
    "channel": lambda random: random.choice(("file", "console")),
    "caller": lambda random: _caller(random, random.choice(INSTITUTIONS), frozenset(_some(random, ROLES, 0.5))),
    "on_behalf_of": lambda random: random.choice(INSTITUTIONS),
    "action": lambda random: random.choice((FETCH, SEND, POLL, TAKE, "status.query", "nonsense")),
    "dataset": lambda random: random.choice(tuple(DATASETS)),
    "at": lambda random: _near(random),
    "fields": lambda random: tuple(_some(random, NAMES, 0.3)),
}
_UNFORTUNATE: dict[str, Callable[[Random], Any]] = {
    "subject": lambda random: None,
    "birth_date": lambda random: None,
    "deceased": lambda random: True,
    "sealed": lambda random: True,
    "court_order": lambda random: True,
    "export_ban": lambda random: True,
    "barred": lambda random: frozenset(_some(random, (*INSTITUTIONS, str(OPERATOR), str(MOTHER)), 0.4)),
    "objections": lambda random: frozenset(_some(random, PURPOSES, 0.6)),
    "representations": lambda random: (),
    "restrictions": lambda random: (
        RestrictionFact(
            random.choice(("", *INSTITUTIONS)),
            random.choice(("", "", *DATASETS)),
            (_near(random) - timedelta(hours=3)).date(),
        ),
    ),
}


def _facts(random: Random, drawn: Tables, request: Request) -> SubjectFacts:
    # Of age on the very day, a day later, and born on a day that few years have.
    birth = random.choice(
        (date(1980, 1, 1), date(1980, 1, 1), date(2015, 1, 1), date(2008, 6, 1), date(2008, 6, 2), date(2008, 2, 29))
    )
    return SubjectFacts(
        subject=PERSON,
        birth_date=birth,
        barred=frozenset(_some(random, (str(BROTHER), "MEC"), 0.1)),
        consents=tuple(_consent(random, each, request) for each in drawn.agreements * 2 if random.random() < 0.6),
        representations=tuple(_mandate(random, each) for each in MANDATES[:2]),
        glasses=tuple(
            OpenedGlass(
                institution=random.choice((*(request.caller.institution,) * 4, request.holder)),
                user=request.caller.user
                if random.random() < 0.7 and request.caller.user
                else random.choice(("ana", "eva")),
                dataset=random.choice((*(request.dataset,) * 4, "identity")),
                incident=random.choice("12"),
                expires_at=_near(random),
            )
            for _ in range(random.choice((0, 1, 2)))
        ),
    )


def _consent(random: Random, agreement: Agreement, request: Request) -> ConsentFact:
    likely = random.random() < 0.8
    return ConsentFact(
        id=UUID(int=random.getrandbits(128)),
        agreement=agreement.code,
        purposes=agreement.purposes if likely else frozenset(_some(random, PURPOSES, 0.5)),
        fields=frozenset(_some(random, sorted({*request.fields, *NAMES[:4]}), 0.85)),
        state=random.choice((*("given",) * 16, "withdrawn", "refused", "revoked", "expired")),
        text_version="1",
        given_at=_near(random, past=0.9),
        expires_at=None if random.random() < 0.8 else _near(random),
        labels=frozenset(_some(random, _LABELS, 0.7)),
        scope_sha256=agreement.scope_sha256() if random.random() < 0.95 else random.choice((None, b"other")),
        representation=random.choice((None, None, *MANDATES)),
    )


def _mandate(random: Random, mandate: UUID) -> RepresentationFact:
    return RepresentationFact(
        id=mandate,
        representative=random.choice((MOTHER, BROTHER)),
        kind=random.choice(("parent", "parent", "guardian", "curator", "proxy")),
        valid_from=AT - timedelta(days=random.choice((2, 9, 9, 9))),
        valid_to=None if random.random() < 0.8 else _near(random),
        ended_at=None if random.random() < 0.8 else _near(random),
    )


def _near(random: Random, past: float = 0.5) -> datetime:
    """An instant around the one that most requests are for, often that one exactly."""
    size = timedelta(microseconds=random.choice((0, 1, 3_600_000_000, 86_400_000_000)))
    return AT - size if random.random() < past else AT + size


def _some(random: Random, values: Any, chance: float) -> list[Any]:
    return [value for value in values if random.random() < chance]


def _least(random: Random, values: Any, chance: float) -> list[Any]:
    return _some(random, values, chance) or [random.choice(values)]


def smallest(case: Case, fails: Callable[[Case], bool]) -> Case:
    """Drop agreements, facts, fields and flags, one at a time, for as long as the case still fails."""
    while True:
        for smaller in _smaller(case):
            if fails(smaller):
                case = smaller
                break
        else:
            return case


def _smaller(value: Any) -> Iterator[Any]:
    """Yield what has one thing less: an element of a collection, or a part set back to what it is by default."""
    if isinstance(value, Case | Tables | Request | SubjectFacts | Agreement | Caller | ConsentFact):
        for each in fields(value):
            part = getattr(value, each.name)
            if each.default not in (MISSING, part):
                yield replace(value, **{each.name: each.default})
            for less in _smaller(part):
                yield replace(value, **{each.name: less})
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield {other: each for other, each in value.items() if other != key}
            for less in _smaller(part):
                yield {**value, key: less}
    elif isinstance(value, tuple) and not isinstance(value, Assignment):
        for at, part in enumerate(value):
            yield (*value[:at], *value[at + 1 :])
            for less in _smaller(part):
                yield (*value[:at], less, *value[at + 1 :])
    elif isinstance(value, frozenset):
        for part in sorted(value):
            yield value - {part}
