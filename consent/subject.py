"""What the person asked about has to say: protection that nobody overrides, objection, and consent in force."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

from consent.models import FETCH, POLL, SEND, TAKE, ConsentFact, RepresentationFact, Request, SubjectFacts
from consent.policy import Grant, Policy
from schemas.ages import age_on

AGE_OF_CONSENT = 18
# The bases a person's objection cannot remove (Ley 7593/2025 art. 30 leaves legal obligations standing).
_UNMOVED_BY_OBJECTION = frozenset({"legal-obligation"})
# Whose mandate is only good until the person comes of age.
_UNTIL_MAJORITY = frozenset({"parent", "guardian"})
# Legal terms count in Paraguay, which keeps UTC-3 the whole year since October 2024.
_PARAGUAY = timezone(timedelta(hours=-3))


def refusals(request: Request, facts: SubjectFacts, policy: Policy, basis: str) -> tuple[str, ...]:
    """Collect what the person's protection, absence from our store or objection forbids; none of it can be lifted.

    ``basis`` is the one a permit would rest on: an emergency's, where the one asked for was refused.
    """
    reasons = []
    if facts.sealed:
        reasons.append("sealed")
    if facts.court_order:
        reasons.append("court-order")
    if facts.barred and not facts.barred.isdisjoint(_names(request)):
        reasons.append("barred")
    if facts.export_ban and request.requester != request.holder:
        reasons.append("export-ban")
    if facts.subject is None and not _may_be_unknown(request, policy, basis):
        reasons.append("unknown-subject")
    if request.purpose in facts.objections and basis not in _UNMOVED_BY_OBJECTION:
        reasons.append("objection")
    if facts.restrictions and _restricted(request, facts, policy, basis):
        reasons.append("restricted")
    return tuple(reasons)


def _restricted(request: Request, facts: SubjectFacts, policy: Policy, basis: str) -> bool:
    """Say whether a restriction in place of a deletion stands: it leaves the person's own view and vital interest."""
    if basis in policy.emergency_bases or (facts.subject is not None and request.caller.person == facts.subject):
        return False
    today = request.at.astimezone(_PARAGUAY).date()
    return any(
        today <= each.until and each.holder in ("", request.holder) and each.dataset in ("", request.dataset)
        for each in facts.restrictions
    )


def _names(request: Request) -> list[str]:
    """Under which names who would learn of a case may be barred from it: institutions, a person with their own token.

    What is sent is learnt by its holder: the institution that receives it.
    """
    caller = request.caller
    names = [caller.institution, request.requester]
    if request.action == SEND:
        names.append(request.holder)
    return names if caller.person is None else [*names, str(caller.person)]


def _may_be_unknown(request: Request, policy: Policy, basis: str) -> bool:
    """Of a person we know nothing about, only identity may be asked, under a public duty (DESIGN 9.5).

    A poll or a whole register is about nobody in particular; what it brings is decided when it is asked for.
    """
    if request.action in (POLL, TAKE):
        return True
    if request.action == SEND:
        return request.registers_subject
    public_duty = request.action == FETCH and basis in policy.public_duty
    return public_duty and request.dataset in policy.identity_datasets


def consent_in_force(request: Request, grant: Grant, facts: SubjectFacts) -> tuple[ConsentFact | None, str]:
    """Return the person's newest consent under an agreement, or ``None`` and why it does not count."""
    mine = [consent for consent in facts.consents if consent.agreement == grant.ref.code]
    if not mine:
        return None, "none"
    # Of two records of the same instant the one that refuses counts, then the one recorded last.
    newest = mine[0] if len(mine) == 1 else max(mine, key=lambda each: (each.given_at, each.state != "given", each.id))
    problem = _problem(newest, request, grant, facts)
    return (None, problem) if problem else (newest, "given")


def _problem(consent: ConsentFact, request: Request, grant: Grant, facts: SubjectFacts) -> str:
    """Name the first thing that keeps a consent from counting; empty when it counts."""
    if consent.state != "given":
        return consent.state
    if consent.given_at > request.at:
        return "not-yet"
    if consent.expires_at is not None and request.at >= consent.expires_at:
        return "expired"
    if consent.scope_sha256 != grant.scope_sha256:
        return "other-scope"
    if request.purpose not in consent.purposes:
        return "purpose"
    if facts.deceased:
        return "deceased"
    adult = is_adult(facts.birth_date, request.at)
    if consent.representation is None:
        return "" if adult else "minor"
    mandate = next((each for each in facts.representations if each.id == consent.representation), None)
    return "" if mandate is not None and _mandated(mandate, consent, request.at, facts, adult) else "representative"


def _mandated(
    mandate: RepresentationFact, consent: ConsentFact, at: datetime, facts: SubjectFacts, adult: bool
) -> bool:
    """Say whether who gave a consent for the person might then, and still may."""
    if mandate.kind in _UNTIL_MAJORITY and (adult or facts.birth_date is None):
        return False
    if str(mandate.representative) in facts.barred:
        return False
    ended = mandate.ended_at is not None and mandate.ended_at <= at
    over = mandate.valid_to is not None and mandate.valid_to <= at
    return mandate.valid_from <= consent.given_at and not ended and not over


def is_adult(birth_date: date | None, at: datetime) -> bool:
    """Say whether somebody is of age; nobody of unknown birth date is presumed to be (DESIGN 9.5)."""
    if birth_date is None:
        return False
    return age_on(birth_date, at.astimezone(_PARAGUAY).date()) >= AGE_OF_CONSENT
