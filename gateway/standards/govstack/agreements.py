"""DataAgreements: our agreements between institutions, with the few words that only the building block asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.agreement_life import History, Version
from consent.agreements import Step, list_histories, read_draft, read_history
from consent.errors import InvalidAgreement, UnknownAgreement
from consent.models import Agreement
from consent.transaction import instant
from gateway import errors
from gateway.governance import agreements as governed
from gateway.standards.govstack import models, policies, revisions
from gateway.standards.govstack.models import Answer, Call
from gateway.standards.govstack.revisions import DATA_AGREEMENT, Revision, State
from gateway.standards.govstack.tables import agreement as extra_table
from gateway.standards.govstack.tables import revision as revision_table
from schemas.ids import uuid7
from schemas.text import _
from schemas.validation import validate


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """What the building block says of an agreement and the agreement does not, from an instant on."""

    dpia: str
    policy_revision: UUID | None
    policy: dict[str, Any] | None
    at: datetime
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An agreement with its frozen revisions, one per state; ``versions`` are the agreements of these states."""

    history: History
    extras: Sequence[Extra]
    revisions: Sequence[Revision]
    versions: Sequence[Version]

    def json(self, version: Version, *, at: datetime | None = None) -> dict[str, Any]:
        """Return the DataAgreement of a version, with its words of that time (``None``: of now)."""
        extra = _extra_at(self.extras, at)
        policy = None if extra is None else extra.policy
        dpia = "" if extra is None else extra.dpia
        signature = _signature(self.history, version.agreement)
        return models.data_agreement_json(version.agreement, dpia=dpia, policy=policy, signature=signature)

    def revision_of(self, number: int, at: datetime) -> Revision:
        """Return the revision that a version of the agreement had at an instant."""
        fitting = [
            found
            for found, version in zip(self.revisions, self.versions, strict=False)
            if version.agreement.version == number
        ]
        before = [each for each in fitting if each.at <= at]
        return (before or fitting or list(self.revisions))[-1 if before else 0]

    def latest(self) -> dict[str, Any]:
        """Return the newest DataAgreement and its revision, as most answers show them."""
        return {
            "dataAgreement": self.json(self.history.versions[-1]),
            "revision": revisions.revision_json(self.revisions),
        }


async def create(call: Call) -> Answer:
    """Draft an agreement; both parties sign it, and one activates it, through ``/api/v1/agreements``.

    What a DataAgreement cannot say (parties, datasets, purposes…) is in its member ``siis``.
    """
    given = call.message["dataAgreement"]
    _check(given)
    if "siis" not in given:
        detail = _("Diga partes, conjuntos de datos, finalidades y vigencia en «siis», como en /api/v1/agreements.")
        raise errors.BadRequest("incomplete-agreement", pointer="/dataAgreement/siis", detail=detail)
    text = _text(given, {"en": given["purpose"], "norm": ""})
    with _of_siis():
        said = await governed.draft(call.connection, _valid(text), actor=call.actor, at=call.at)
    await _keep_words(call, said["agreement"], given)
    return said, (await shown(call.connection, said["agreement"], call.institution)).latest()


async def change(call: Call) -> Answer:
    """Suspend or resume an agreement by ``active``, draft another text for it, or change its policy and DPIA.

    One of the three at a time; a new text is a draft until both have signed it.
    """
    given, code = call.message["dataAgreement"], call.path["dataAgreementId"]
    _check(given)
    before = await shown(call.connection, code, call.institution)
    newest = before.history.versions[-1].agreement
    text = _valid(_text({**given, "id": code}, _stored(newest)))
    in_force = before.history.in_force
    active = in_force is not None and in_force.agreement.status == "active"
    said: dict[str, Any]
    with _of_siis():
        if _is_another(text, newest):
            said = await governed.draft(call.connection, text, actor=call.actor, at=call.at)
        elif in_force is not None and given.get("active", active) is not active:
            step: Step = "suspend" if active else "resume"
            said = await governed.step(call.connection, code, step, actor=call.actor, at=call.at)
        else:
            said = {"event": "consentbb.agreement_changed", "agreement": code, "version": newest.version}
    await _keep_words(call, code, given)
    return said, (await shown(call.connection, code, call.institution)).latest()


async def remove(call: Call) -> Answer:
    """End an agreement for good: it expires. Nothing of it is deleted, because consents rest on it."""
    code = call.path["dataAgreementId"]
    said = await governed.step(call.connection, code, "expire", actor=call.actor, at=call.at)
    after = await shown(call.connection, code, call.institution)
    return said, {"revision": revisions.revision_json(after.revisions)}


async def show(call: Call) -> Answer:
    """Show the newest version of an agreement to its parties."""
    return None, (await shown(call.connection, call.path["dataAgreementId"], call.institution)).latest()


async def show_all(call: Call, *, name: str = "dataAgreement", status: str | None = None) -> Answer:
    """List the agreements that the caller's institution is party to, by code; all, or those in a status."""
    found = await list_histories(call.connection, party=call.institution, status=status, limit=call.offset + call.limit)
    told = []
    for history in found[call.offset :]:
        each = await _shown(call.connection, history)
        told.append(each.json(history.versions[-1] if status is None else _standing(history)))
    return None, {name: told}


async def show_active(call: Call) -> Answer:
    """List the active agreements that the caller's institution is party to."""
    return await show_all(call, name="dataAgreements", status="active")


async def audit_all(call: Call) -> Answer:
    """List the agreements for an auditor of one of their parties; that it was read is in the log."""
    _said, body = await show_all(call, name="dataAgreements")
    return {"event": "consentbb.audited", "agreements": len(body["dataAgreements"])}, body


async def audit_one(call: Call) -> Answer:
    """Show one agreement to an auditor of one of its parties; that it was read is in the log."""
    code = call.path["dataAgreementId"]
    found = await shown(call.connection, code, call.institution)
    body = {"dataAgreement": found.json(found.history.versions[-1])}
    return {"event": "consentbb.audited", "agreement": code}, body


async def shown(connection: AsyncConnection, code: str, institution: str) -> Shown:
    """Return an agreement with its revisions; raises NotFound for who is no party of it."""
    if not governed.CODE.match(code):
        raise errors.NotFound("not-found")
    try:
        history = await read_history(connection, code, party=institution)
    except UnknownAgreement:
        raise errors.NotFound("not-found") from None
    return await _shown(connection, history)


@contextmanager
def _of_siis() -> Iterator[None]:
    """Let what is refused of a text point to the member of the message that holds it."""
    try:
        yield
    except errors.BadRequest as error:
        error.pointer = f"/dataAgreement/siis{error.pointer or ''}"
        raise


def _check(given: dict[str, Any]) -> None:
    if given.get("forgettable"):
        detail = _("El registro de un consentimiento es la prueba que la ley pide y no se olvida al retirarlo.")
        raise errors.BadRequest("not-forgettable", pointer="/dataAgreement/forgettable", detail=detail)


def _text(given: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return the text of an agreement: what there was before, what ``siis`` changes, and their own fields."""
    siis = {**before, **given.get("siis", {})}
    norm = siis.pop("norm", "")
    basis, bases = models.our_basis(given["lawfulBasis"]), siis.get("bases", [])
    if basis not in [each.get("basis") for each in bases if isinstance(each, dict)]:
        # Another basis needs the norm it rests on; an empty one is refused with the rest of the text.
        siis["bases"] = [{"basis": basis, "norm": norm}]
    return {**siis, "code": given["id"], "es": given["purpose"]}


def _valid(text: dict[str, Any]) -> dict[str, Any]:
    validate("agreement-draft", text)
    return text


def _is_another(text: dict[str, Any], newest: Agreement) -> bool:
    try:
        return read_draft(text).text_sha256() != newest.text_sha256()
    except InvalidAgreement:
        # A text that is none is another one, and is refused as a draft.
        return True


def _stored(agreement: Agreement) -> dict[str, Any]:
    valid_to = None if agreement.valid_to is None else instant(agreement.valid_to)
    document = {name: value for name, value in agreement.document().items() if value not in (None, {})}
    return {**document, "valid_from": instant(agreement.valid_from), "valid_to": valid_to}


async def _keep_words(call: Call, code: str, given: dict[str, Any]) -> None:
    """Keep the policy and the DPIA that a DataAgreement names, where they are others than before."""
    extras = await _extras(call.connection, [code])
    before = extras[code][-1] if code in extras else None
    revision_id = None if before is None else before.policy_revision
    if "policy" in given:
        policy_id = models.object_id(given["policy"]["id"])
        revision_id = (await policies.latest(call.connection, call.institution, policy_id)).id
    if before is not None and (before.dpia, before.policy_revision) == (given["dpia"], revision_id):
        return
    if before is None and not given["dpia"] and revision_id is None:
        return
    new = {"dpia": given["dpia"], "policy_revision": revision_id, "at": call.at, "by": str(call.actor)}
    await call.connection.execute(insert(extra_table).values(id=uuid7(), code=code, **new))


async def _shown(connection: AsyncConnection, history: History) -> Shown:
    extras = (await _extras(connection, [history.code])).get(history.code, [])
    told = Shown(history=history, extras=extras, revisions=[], versions=[])
    instants = sorted({each.at for each in history.versions} | {each.at for each in extras})
    versions = [_version_at(history, at) for at in instants]
    states = [_state(told, version, at) for version, at in zip(versions, instants, strict=True)]
    frozen = await revisions.freeze(connection, DATA_AGREEMENT, history.code, states)
    return Shown(history=history, extras=extras, revisions=frozen, versions=versions)


def _state(told: Shown, version: Version, at: datetime) -> State:
    # Signatures come later than the text they are on, so no state of the text holds one.
    fields = {name: value for name, value in told.json(version, at=at).items() if name != "signature"}
    whole = {
        **fields,
        "attributes": models.attributes_json(version.agreement),
        "siis": _stored(version.agreement),
    }
    by = version.by if version.at == at else next(each.by for each in told.extras if each.at == at)
    return State(fields=whole, at=at, by=by)


def _version_at(history: History, at: datetime) -> Version:
    known = [each for each in history.versions if each.at <= at]
    return known[-1] if known else history.versions[0]


def _extra_at(extras: Sequence[Extra], at: datetime | None) -> Extra | None:
    known = [each for each in extras if at is None or each.at <= at]
    return known[-1] if known else None


def _standing(history: History) -> Version:
    return history.in_force or history.versions[-1]


def _signature(history: History, agreement: Agreement) -> dict[str, Any] | None:
    text = agreement.text_sha256()
    mine = [each for each in history.signatures if each.text_sha256 == text]
    if not mine:
        return None
    last = mine[-1]
    return models.agreement_signature_json(agreement, last.party, last.proof_reference, instant(last.at))


async def _extras(connection: AsyncConnection, codes: Sequence[str]) -> dict[str, list[Extra]]:
    query = (
        select(extra_table, revision_table)
        .join(revision_table, revision_table.c.id == extra_table.c.policy_revision, isouter=True)
        .where(extra_table.c.code.in_(codes))
        .order_by(extra_table.c.id)
    )
    found: dict[str, list[Extra]] = {}
    for row in await connection.execute(query):
        _id, code, dpia, policy_revision, at, by, *frozen = row
        policy = None if policy_revision is None else policies.policy_json(Revision(*frozen))
        found.setdefault(code, []).append(
            Extra(dpia=dpia, policy_revision=policy_revision, policy=policy, at=at, by=by)
        )
    return found
