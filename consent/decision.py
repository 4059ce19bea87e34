"""The decision: may this caller have these fields about this person, for this purpose, on this basis, now?

One pure function over a request, our own facts about the person and the policy in memory. Deny overrides, no match
denies. What depends on the request alone is judged first, so that such a refusal says nothing about the person;
only then is the person looked at, and a refusal from there on must look like "not found".
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

from consent.models import (
    AUDIT_BEFORE_RELEASE,
    NO_ONWARD_SHARING,
    POLL,
    REPLIES,
    SEND,
    SERVICE_PREFIX,
    TAKE,
    AgreementRef,
    Caller,
    ConsentFact,
    Decision,
    Request,
    SubjectFacts,
)
from consent.policy import Grant, Policy
from schemas.ids import uuid7
from schemas.permit import issue

CONSENT = "consent"
LOWEST_ASSURANCE = 1
_AGE_OF_CONSENT = 18
# The bases a person's objection cannot remove (Ley 7593/2025 art. 30 leaves legal obligations standing).
_UNMOVED_BY_OBJECTION = frozenset({"legal-obligation"})
# Legal terms count in Paraguay, which keeps UTC-3 the whole year since October 2024.
_PARAGUAY = timezone(timedelta(hours=-3))
# What an agreement is compared on, in this order; the furthest one reached is the reason given.
_STAGES = ("agreement", "purpose", "basis", "role", "assurance", "fields")
_NOBODY: frozenset[str] = frozenset()


def decide(request: Request, facts: SubjectFacts, policy: Policy) -> Decision:
    """Decide a request on the facts about its subject and the policy. Pure: no I/O, same input, same answer but the id.

    A permit is issued exactly when the effect is not ``deny``. ``facts`` must come from our own store.
    """
    reasons = _request_refusals(request, policy)
    if reasons:
        return _denied(policy, reasons)
    asked = frozenset(request.fields)
    grants = _fitting_grants(request, asked, policy)
    if isinstance(grants, str):
        return _denied(policy, (grants,))
    reasons = _subject_refusals(request, facts, policy)
    if reasons:
        withheld = dict.fromkeys(request.fields, "objection") if "objection" in reasons else {}
        return _denied(policy, reasons, hides_subject=True, ref=grants[0].ref, withheld=withheld)
    return _release(request, asked, grants, facts, policy)


def _request_refusals(request: Request, policy: Policy) -> tuple[str, ...]:
    """Collect what is wrong with codes, parties and role, whatever the agreements say."""
    caller, requester = request.caller, request.requester
    reasons = []
    if request.purpose not in policy.purposes:
        reasons.append("unknown-purpose")
    if request.basis not in policy.bases:
        reasons.append("unknown-basis")
    if policy.suspended and not policy.suspended.isdisjoint((caller.institution, requester, request.holder)):
        reasons.append("party-suspended")
    for_another = requester != caller.institution
    if (
        not policy.may(caller.roles, request.action)
        or not _action_fits(request.action, request.dataset)
        or (for_another and caller.roles.isdisjoint(policy.intermediaries))
    ):
        reasons.append("role")
    return tuple(reasons)


def _action_fits(action: str, dataset: str) -> bool:
    """Referrals go to services, polls to replies, and neither verb opens anything else."""
    if dataset.startswith(SERVICE_PREFIX):
        return action == SEND
    if dataset == REPLIES:
        return action == POLL
    return action not in (SEND, POLL)


def _fitting_grants(request: Request, asked: frozenset[str], policy: Policy) -> list[Grant] | str:
    """Return the agreements that cover the request, or the reason that stopped the one that came furthest."""
    roles = request.caller.roles & policy.roles_by_action[request.action]
    consent_or_duty = request.basis == CONSENT or request.basis in policy.public_duty
    assurance = _assurance(request.caller)
    fitting: list[Grant] = []
    furthest = 0
    for grant in policy.grants.get((request.requester, request.holder, request.dataset), ()):
        if not _in_force(grant, request):
            continue
        if request.purpose not in grant.purposes:
            stopped_at = 1
        elif not consent_or_duty or request.basis not in grant.norms:
            stopped_at = 2
        elif roles.isdisjoint(grant.roles):
            stopped_at = 3
        elif assurance < grant.minimum_assurance:
            stopped_at = 4
        elif asked.isdisjoint(grant.visible):
            stopped_at = 5
        else:
            fitting.append(grant)
            continue
        furthest = max(furthest, stopped_at)
    return fitting or _STAGES[furthest]


def _in_force(grant: Grant, request: Request) -> bool:
    """Say whether an agreement is the one claimed, if any, and valid now for the way the request came."""
    return (
        grant.starts_at <= request.at
        and (grant.ends_at is None or request.at < grant.ends_at)
        and request.channel in grant.channels
        and (request.agreement is None or grant.ref.code == request.agreement)
    )


def _assurance(caller: Caller) -> int:
    """An operator nobody verified is a claim, good for the lowest assurance only (DESIGN 9.6)."""
    return caller.assurance if caller.user_verified else min(caller.assurance, LOWEST_ASSURANCE)


def _subject_refusals(request: Request, facts: SubjectFacts, policy: Policy) -> tuple[str, ...]:
    """Collect what the person's protection, absence from our store or objection forbids."""
    reasons = []
    if facts.sealed:
        reasons.append("sealed")
    if facts.subject is None and not _may_be_unknown(request, policy):
        reasons.append("unknown-subject")
    if request.purpose in facts.objections and request.basis not in _UNMOVED_BY_OBJECTION:
        reasons.append("objection")
    return tuple(reasons)


def _may_be_unknown(request: Request, policy: Policy) -> bool:
    """Of a person we know nothing about, only identity may be asked, under a public duty (DESIGN 9.5).

    A poll or a whole register is about nobody in particular; what it brings is decided when it is asked for.
    """
    if request.action in (POLL, TAKE):
        return True
    if request.action == SEND:
        return request.registers_subject
    return request.dataset in policy.identity_datasets and request.basis in policy.public_duty


def _release(
    request: Request, asked: frozenset[str], grants: list[Grant], facts: SubjectFacts, policy: Policy
) -> Decision:
    """Release by the agreement that gives most of what was asked; the first code where several give as much."""
    best, released, resting_on = grants[0], _NOBODY, None
    for grant in grants:
        given = asked & grant.visible
        consent = None
        if request.basis == CONSENT:
            consent = _consent_in_force(request, grant.ref.code, facts)
            given &= _NOBODY if consent is None else consent.fields
        if len(given) > len(released):
            best, released, resting_on = grant, given, consent
    withheld: dict[str, str] = {}
    if len(released) < len(asked):
        withheld = {field: _withheld_because(field, best) for field in request.fields if field not in released}
    if not released:
        return _denied(policy, ("consent",), hides_subject=True, ref=best.ref, withheld=withheld)
    decision_id = uuid7()
    return Decision(
        id=decision_id,
        effect="permit_redacted" if withheld else "permit",
        permit=issue(
            decision_id=decision_id,
            action=request.action,
            requester=request.requester,
            holder=request.holder,
            dataset=request.dataset,
            subject=facts.subject,
            released=released,
            purpose=request.purpose,
            issued_at=request.at,
        ),
        released=released,
        withheld=withheld,
        reasons=(),
        hides_subject=False,
        agreement=best.ref,
        norm=best.norms[request.basis],
        consent=None if resting_on is None else resting_on.id,
        obligations=(AUDIT_BEFORE_RELEASE, NO_ONWARD_SHARING),
        policy_version=policy.version,
    )


def _consent_in_force(request: Request, agreement: str, facts: SubjectFacts) -> ConsentFact | None:
    """Return the person's newest consent under an agreement if it covers purpose and time, and is theirs to give."""
    mine = [consent for consent in facts.consents if consent.agreement == agreement]
    if not mine or facts.deceased or not _is_adult(facts.birth_date, request.at):
        return None
    # Of two records of the same instant, the one that refuses counts.
    newest = mine[0] if len(mine) == 1 else max(mine, key=lambda each: (each.given_at, each.state != "given"))
    in_force = (
        newest.state == "given"
        and newest.given_at <= request.at
        and (newest.expires_at is None or request.at < newest.expires_at)
        and request.purpose in newest.purposes
    )
    return newest if in_force else None


def _is_adult(birth_date: date | None, at: datetime) -> bool:
    """Nobody of unknown birth date is presumed an adult, and a minor's own consent does not count (DESIGN 9.5)."""
    if birth_date is None:
        return False
    today = at.astimezone(_PARAGUAY)
    before_birthday = (today.month, today.day) < (birth_date.month, birth_date.day)
    return today.year - birth_date.year - before_birthday >= _AGE_OF_CONSENT


def _withheld_because(field: str, grant: Grant) -> str:
    if field not in grant.agreed:
        return "not-in-agreement"
    return "consent-scope" if field in grant.visible else "label-not-covered"


def _denied(
    policy: Policy,
    reasons: tuple[str, ...],
    *,
    hides_subject: bool = False,
    ref: AgreementRef | None = None,
    withheld: dict[str, str] | None = None,
) -> Decision:
    return Decision(
        id=uuid7(),
        effect="deny",
        permit=None,
        released=_NOBODY,
        withheld=withheld or {},
        reasons=reasons,
        hides_subject=hides_subject,
        agreement=ref,
        norm=None,
        consent=None,
        obligations=(),
        policy_version=policy.version,
    )
