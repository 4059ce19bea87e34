"""Keeps agreements: what one may say, its versions and signatures from draft to end, and institutions that are stopped.

Every function works on the connection handed in and commits nothing. Every change returns what the log must say, as a
JSON-ready dict whose ``event`` names it. Which step follows which is decided in ``consent/agreement_life.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, get_args

import structlog
from sqlalchemy import insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import tables
from consent.agreement_life import (
    DRAFT,
    Contradiction,
    History,
    Signature,
    Version,
    acting_for,
    check_new_text,
    conflicts,
    name_of,
    next_version,
    parties,
)
from consent.agreement_view import conflict_json
from consent.errors import InvalidAgreement, UnknownAgreement
from consent.models import SERVICE_PREFIX, Actor, Agreement, Treatment, parse_agreement
from consent.policy import dataset_labels, read_agreements
from consent.transaction import instant, lock
from schemas.canonical import canonical_json, sha256
from schemas.codes import code_list
from schemas.ids import uuid7
from schemas.text import _

EMERGENCY_ROLE = "emergency"
EMERGENCY_FIELDS, EMERGENCY_ASSURANCE = 8, 2
DEMONSTRATION = "demonstration"
TREATMENTS = frozenset(get_args(Treatment))
_CHUNK = 200
_SAID = {
    "propose": "agreement.proposed",
    "sign": "agreement.signed",
    "activate": "agreement.activated",
    "suspend": "agreement.suspended",
    "resume": "agreement.resumed",
    "expire": "agreement.expired",
}

Step = Literal["propose", "sign", "activate", "suspend", "resume", "expire"]
_log = structlog.get_logger(__name__)


def check_agreement(agreement: Agreement) -> None:
    """Hold an agreement against the code lists; raise :class:`InvalidAgreement` for the first rule broken.

    Institutions and services are the catalogue's (DESIGN 9.15) and are not checked here.
    """
    bases = [agreed.basis for agreed in agreement.bases]
    for field, found, listed in (
        ("purposes", agreement.purposes, "purposes"),
        ("roles", agreement.roles, "roles"),
        ("bases", frozenset(bases), "legal-bases"),
        ("labels", agreement.labels, "labels"),
    ):
        if not found <= code_list(listed).keys():
            raise InvalidAgreement(
                agreement.code, field, _("no está en la lista {name}").format(name=listed), code_list(listed)
            )
    if len(bases) != len(set(bases)):
        raise InvalidAgreement(agreement.code, "bases", _("cada base una sola vez, con una norma"))
    if agreement.valid_to is not None and agreement.valid_to <= agreement.valid_from:
        raise InvalidAgreement(agreement.code, "valid_to", _("no es posterior a valid_from"))
    for dataset, fields in agreement.datasets.items():
        _check_dataset(agreement, dataset, fields)
    for dataset, treated in agreement.treatments.items():
        if not treated.keys() <= agreement.datasets.get(dataset, frozenset()):
            what = _("nombra un campo que el acuerdo no entrega")
            raise InvalidAgreement(agreement.code, f"treatments/{dataset}", what, agreement.datasets.get(dataset, ()))
    if any(code_list("legal-bases")[basis].get("emergency") for basis in bases):
        _check_emergency(agreement, bases)


def read_draft(message: Mapping[str, Any]) -> Agreement:
    """Read the text of a draft from a valid ``agreement-draft`` message; raise :class:`InvalidAgreement`."""
    for dataset, fields in message.get("treatments", {}).items():
        if not set(fields.values()) <= TREATMENTS:
            what = _("no está en la lista {name}").format(name="treatments")
            raise InvalidAgreement(message["code"], f"treatments/{dataset}", what, TREATMENTS)
    return parse_agreement({**message, "status": DRAFT})


def _check_dataset(agreement: Agreement, dataset: str, fields: frozenset[str]) -> None:
    labels, declared = dataset_labels(dataset), code_list("datasets")
    if not labels:
        what = _("no existe ese conjunto de datos")
        raise InvalidAgreement(agreement.code, f"datasets/{dataset}", what, declared)
    if not fields <= labels.keys():
        raise InvalidAgreement(agreement.code, f"datasets/{dataset}", _("no tiene ese campo"), labels)
    if dataset in declared and declared[dataset]["holder"] != agreement.holder:
        raise InvalidAgreement(agreement.code, f"datasets/{dataset}", _("lo tiene otra institución"))


def _check_emergency(agreement: Agreement, bases: Sequence[str]) -> None:
    """Hold an emergency clause to its bounds: nothing but that basis and role, few fields, a well-known operator."""
    if len(bases) > 1:
        raise InvalidAgreement(agreement.code, "bases", _("una cláusula de emergencia no tiene otra base"))
    if agreement.roles != {EMERGENCY_ROLE}:
        raise InvalidAgreement(agreement.code, "roles", _("en una emergencia solo actúa este rol"), (EMERGENCY_ROLE,))
    if agreement.minimum_assurance < EMERGENCY_ASSURANCE:
        what = _("una emergencia pide al menos el nivel {level}").format(level=EMERGENCY_ASSURANCE)
        raise InvalidAgreement(agreement.code, "minimum_assurance", what)
    for dataset, fields in agreement.datasets.items():
        if len(fields) > EMERGENCY_FIELDS or dataset.startswith(SERVICE_PREFIX):
            what = _("una emergencia abre como mucho {n} campos de un conjunto de datos").format(n=EMERGENCY_FIELDS)
            raise InvalidAgreement(agreement.code, f"datasets/{dataset}", what)


async def put_agreement(
    conn: AsyncConnection, agreement: Agreement, *, at: datetime, by: str | None = None
) -> dict[str, Any]:
    """Store an agreement as the next version of its code, signed or not; ``version`` is the number it got.

    Raises :class:`InvalidAgreement` when it breaks a code list, or names other parties than the version before: a
    consent given under a code must not come to mean another recipient.
    """
    check_agreement(agreement)
    row = tables.agreement.c
    await lock(conn, f"agreement {agreement.code}")
    newest = (
        await conn.execute(
            select(row.version, row.document).where(row.code == agreement.code).order_by(row.version.desc()).limit(1)
        )
    ).first()
    if newest is not None:
        _check_parties(agreement, newest.document.get("requester"), newest.document.get("holder"))
    stored = replace(agreement, version=1 if newest is None else newest.version + 1)
    return await _store(conn, "agreement.stored", stored, at=at, by=by)


async def draft_agreement(
    conn: AsyncConnection, agreement: Agreement, *, actor: Actor, party: str | None = None, at: datetime
) -> dict[str, Any]:
    """Store the text of a party as a draft: a new code, or what shall replace what is in force or under negotiation.

    A user opens codes that begin with their institution only, so that a refusal tells nothing about anybody else's.
    ``party`` is who whoever runs the machine acts for. Raises :class:`InvalidAgreement`, and :class:`StepRefused` for a
    text that was signed or in force before.
    """
    draft = replace(agreement, status=DRAFT, version=0)
    try:
        acting = acting_for(actor, party, draft.code, parties(draft))
    except UnknownAgreement:
        what = _("su institución tiene que ser una de las partes")
        raise InvalidAgreement(draft.code, "requester", what) from None
    check_agreement(draft)
    await lock(conn, f"agreement {draft.code}")
    history = (await read_histories(conn, [draft.code])).get(draft.code)
    if history is None or acting not in history.parties:
        taken = history is not None or await _exists(conn, draft.code)
        if taken or (actor.institution is not None and not draft.code.startswith(f"{acting}-")):
            what = _("use un código libre que empiece con {prefix}").format(prefix=f"{acting}-")
            raise InvalidAgreement(draft.code, "code", what)
        version = 1
    else:
        first = history.versions[0].agreement
        _check_parties(draft, first.requester, first.holder)
        check_new_text(history, draft)
        version = history.versions[-1].agreement.version + 1
    return await _store(
        conn, "agreement.drafted", replace(draft, version=version), at=at, by=name_of(actor, acting), party=acting
    )


async def take_step(
    conn: AsyncConnection,
    code: str,
    step: Step,
    *,
    actor: Actor,
    party: str | None = None,
    at: datetime,
    signatory: str | None = None,
    proof_reference: str | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """Take the next step in the life of an agreement for a party; the result names what then contradicts it.

    Whoever runs the machine names the ``party`` and, to sign, the ``signatory``; ``proof_reference`` says where the
    signed text is kept, ``reason`` the act that orders the step (no person). Raises :class:`UnknownAgreement`, also for
    who is no party, :class:`StepRefused`, and :class:`InvalidAgreement` for a text that no longer fits the code lists.
    """
    await lock(conn, f"agreement {code}")
    history = (await read_histories(conn, [code])).get(code)
    if history is None:
        raise UnknownAgreement(code)
    acting = acting_for(actor, party, code, history.parties)
    after = next_version(history, step, actor=actor, party=acting, at=at)
    said: dict[str, Any] = {"party": acting} | ({} if reason is None else {"reason": reason})
    if step in ("sign", "activate"):
        check_agreement(after)
    if step == "sign":
        signed_by = signatory if actor.institution is None else actor.user
        if not signed_by or not proof_reference:
            raise ValueError("a signature needs its signatory and its proof")
        await _sign(conn, after, [acting], signatory=signed_by, proof_reference=proof_reference, at=at)
        said["signatory"] = signed_by
    stored = replace(after, version=history.versions[-1].agreement.version + 1)
    told = await _store(conn, _SAID[step], stored, at=at, by=name_of(actor, acting), **said)
    if step in ("activate", "resume"):
        told["conflicts"] = [conflict_json(each) for each in await conflicts_of(conn, code)]
    return told


async def read_history(conn: AsyncConnection, code: str, *, party: str | None = None) -> History:
    """Read everything stored under a code; raise :class:`UnknownAgreement` where ``party`` is given and is none."""
    history = (await read_histories(conn, [code])).get(code)
    if history is None or (party is not None and party not in history.parties):
        raise UnknownAgreement(code)
    return history


async def list_histories(
    conn: AsyncConnection, *, party: str | None = None, status: str | None = None, after: str = "", limit: int = 50
) -> list[History]:
    """Return the agreements of a party (``None``: of all) by code, from behind ``after``.

    ``status`` is that of the version in force or of the text under negotiation.
    """
    row = tables.agreement.c
    query = select(row.code).where(row.code > after).distinct().order_by(row.code)
    if party is not None:
        query = query.where(or_(row.document["requester"].astext == party, row.document["holder"].astext == party))
    codes = list(await conn.scalars(query))
    found: list[History] = []
    for start in range(0, len(codes), _CHUNK):
        chunk = await read_histories(conn, codes[start : start + _CHUNK])
        for history in chunk.values():
            statuses = {each.agreement.status for each in (history.in_force, history.pending) if each is not None}
            if status is None or status in statuses:
                found.append(history)
                if len(found) == limit:
                    return found
    return found


async def read_histories(conn: AsyncConnection, codes: Sequence[str]) -> dict[str, History]:
    """Read what is stored under these codes, in the order of the codes; one that cannot be read is logged, left out."""
    row, signature = tables.agreement.c, tables.agreement_signature.c
    versions: dict[str, list[Version]] = defaultdict(list)
    unreadable: set[str] = set()
    for found in await conn.execute(
        select(tables.agreement).where(row.code.in_(codes)).order_by(row.code, row.version)
    ):
        stored = {name: getattr(found, name) for name in ("code", "version", "status", "valid_from", "valid_to")}
        try:
            agreement = parse_agreement(found.document | stored)
        except InvalidAgreement as error:
            _log.error("agreement_unreadable", code=found.code, version=found.version, field=error.field)
            unreadable.add(found.code)
            continue
        versions[found.code].append(Version(agreement=agreement, by=found.created_by, at=found.created_at))
    signatures: dict[str, list[Signature]] = defaultdict(list)
    for found in await conn.execute(
        select(tables.agreement_signature)
        .where(signature.code.in_(codes))
        .order_by(signature.signed_at, signature.party)
    ):
        signatures[found.code].append(
            Signature(
                text_sha256=bytes(found.text_sha256),
                party=found.party,
                signatory=found.signatory,
                proof_reference=found.proof_reference,
                at=found.signed_at,
            )
        )
    return {
        code: History(versions=tuple(each), signatures=tuple(signatures[code]))
        for code, each in versions.items()
        if code not in unreadable
    }


async def conflicts_of(conn: AsyncConnection, code: str | None = None, party: str | None = None) -> list[Contradiction]:
    """Return the contradictions between active agreements: all, those of one code, or those of one party."""
    return [
        each
        for each in conflicts(await read_agreements(conn))
        if (code is None or code in (each.first, each.second))
        and (party is None or party in (each.requester, each.holder))
    ]


async def load_demonstration(conn: AsyncConnection, *, at: datetime) -> list[dict[str, Any]]:
    """Store the demonstration agreements whose code is not there yet, signed, and the compartments if there are none.

    A second call changes nothing. Returns what the log must say: one dict per agreement and per institution.
    """
    await lock(conn, DEMONSTRATION)
    present = set(await conn.scalars(select(tables.agreement.c.code).distinct()))
    said = []
    for agreement in demonstration_agreements():
        if agreement.code not in present:
            said.append(await put_agreement(conn, agreement, at=at, by=DEMONSTRATION))
            await _sign(
                conn,
                agreement,
                sorted(parties(agreement)),
                signatory=DEMONSTRATION,
                proof_reference=DEMONSTRATION,
                at=at,
            )
    if await conn.scalar(select(tables.compartment_grant.c.id).limit(1)) is None:
        said.extend(await _grant_compartments(conn, at))
    return said


def demonstration_agreements() -> list[Agreement]:
    """Read the agreements a new database starts with (``schemas/codes/agreements.yaml``)."""
    return [parse_agreement(spec | {"code": code}) for code, spec in code_list("agreements").items()]


async def suspend_institution(conn: AsyncConnection, code: str, *, reason: str, at: datetime) -> dict[str, Any]:
    """Stop everything an institution asks, holds or mediates; ``reason`` names the act that orders it, no person."""
    state = {"suspended_at": at, "reason": reason}
    await conn.execute(
        upsert(tables.institution_state)
        .values(code=code, **state)
        .on_conflict_do_update(index_elements=["code"], set_=state)
    )
    return {"event": "admin.institution_suspended", "institution": code, "reason": reason, "at": instant(at)}


async def resume_institution(conn: AsyncConnection, code: str, *, at: datetime) -> dict[str, Any]:
    """Lift an institution's suspension; ``changed`` is false where there was none."""
    table = tables.institution_state
    done = await conn.execute(
        update(table)
        .where(table.c.code == code, table.c.suspended_at.is_not(None))
        .values(suspended_at=None, reason=None)
    )
    changed = done.rowcount > 0
    return {"event": "admin.institution_resumed", "institution": code, "changed": changed, "at": instant(at)}


async def _store(
    conn: AsyncConnection, event: str, agreement: Agreement, *, at: datetime, by: str | None, **said: Any
) -> dict[str, Any]:
    """Insert a version; the caller holds the lock on its code."""
    document = agreement.document()
    await conn.execute(
        insert(tables.agreement).values(
            code=agreement.code,
            version=agreement.version,
            document=document,
            status=agreement.status,
            valid_from=agreement.valid_from,
            valid_to=agreement.valid_to,
            created_by=by,
            created_at=at,
        )
    )
    return {
        "event": event,
        "agreement": agreement.code,
        "version": agreement.version,
        "status": agreement.status,
        "valid_from": instant(agreement.valid_from),
        "valid_to": None if agreement.valid_to is None else instant(agreement.valid_to),
        "document_sha256": sha256(canonical_json(document)).hex(),
        "text_sha256": agreement.text_sha256().hex(),
        **said,
    }


async def _sign(
    conn: AsyncConnection,
    agreement: Agreement,
    signing: Sequence[str],
    *,
    signatory: str,
    proof_reference: str,
    at: datetime,
) -> None:
    shared = {
        "code": agreement.code,
        "text_sha256": agreement.text_sha256(),
        "signatory": signatory,
        "proof_reference": proof_reference,
        "signed_at": at,
    }
    await conn.execute(insert(tables.agreement_signature), [{**shared, "party": party} for party in signing])


async def _grant_compartments(conn: AsyncConnection, at: datetime) -> list[dict[str, Any]]:
    shipped = code_list("compartments")
    rows = [
        {
            "id": uuid7(),
            "institution": institution,
            "role": role,
            "compartment": compartment,
            "granted_by": DEMONSTRATION,
            "granted_at": at,
        }
        for institution, roles in shipped.items()
        for role, held in roles.items()
        for compartment in held
    ]
    await conn.execute(insert(tables.compartment_grant), rows)
    return [
        {"event": "compartment.granted", "institution": institution, "roles": roles}
        for institution, roles in shipped.items()
    ]


async def _exists(conn: AsyncConnection, code: str) -> bool:
    row = tables.agreement.c
    return await conn.scalar(select(row.code).where(row.code == code).limit(1)) is not None


def _check_parties(agreement: Agreement, requester: object, holder: object) -> None:
    for party, code, before in (("requester", agreement.requester, requester), ("holder", agreement.holder, holder)):
        if code != before:
            raise InvalidAgreement(agreement.code, party, _("otra parte necesita otro código de acuerdo"))
