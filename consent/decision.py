"""The decision: may this caller have these fields about this person, for this purpose, on this basis, now?

One pure function over a request, our own facts about the person and the policy in memory. Deny overrides, no match
denies. What depends on the request alone is judged first, so that such a refusal says nothing about the person;
only then is the person looked at (``consent/subject.py``), and a refusal from there on must look like "not found".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from uuid import UUID

from consent import subject
from consent.authority import roles_in_force
from consent.grants import (
    CONSENT,
    View,
    assurance_of,
    fitting_grants,
    in_force,
    narrowest,
    shared,
    strictest,
    treatments_of,
    view_of,
)
from consent.models import (
    AUDIT_BEFORE_RELEASE,
    FETCH,
    NO_ONWARD_SHARING,
    NOTIFY_OFFICER,
    NOTIFY_SUBJECT,
    POLL,
    REPLIES,
    RETENTION,
    REVIEW_DUE,
    SEND,
    SERVICE_PREFIX,
    WATERMARK,
    AgreementRef,
    Decision,
    Effect,
    EmergencyClaim,
    Request,
    SubjectFacts,
)
from consent.policy import Policy
from schemas.ids import uuid7
from schemas.permit import issue

EMERGENCY_ACTION = "emergency.use"
EMERGENCY_ASSURANCE = 2
FRESH_LOGIN = timedelta(minutes=15)
REVIEW_WITHIN = timedelta(hours=72)
# The denials an emergency may lift: agreement, consent, labels and restriction; nothing that protects the person.
LIFTABLE = frozenset(
    {"agreement", "purpose", "basis", "role-in-agreement", "assurance", "volume", "fields", "consent", "restricted"}
)
_NOTHING: frozenset[str] = frozenset()
NO_USE: Mapping[str, int] = MappingProxyType({})
NO_TREATMENT: Mapping[str, str] = MappingProxyType({})


def decide(
    request: Request,
    facts: SubjectFacts,
    policy: Policy,
    used: Mapping[str, int] = NO_USE,
    *,
    only_emergency: bool = False,
) -> Decision:
    """Decide a request on the facts about its subject and the policy. Pure: no I/O, same input, same answer but the id.

    ``used`` says how often agreements with a volume were used today. With ``only_emergency`` a request that claims one
    is decided as one even where an ordinary agreement would do. A permit is issued exactly when the effect is not
    ``deny``. ``facts`` must come from our own store.
    """
    roles = roles_in_force(request.caller, policy, request.at)
    trace: list[str] = []
    ordinary = _ordinary(request, roles, facts, policy, used, trace)
    claim = request.emergency
    if claim is None or not LIFTABLE.issuperset(ordinary.reasons):
        return ordinary
    if ordinary.permit is not None and not only_emergency:
        return ordinary
    return _emergency(request, claim, roles, facts, policy, trace, hides_subject=ordinary.hides_subject)


def may_break_glass(request: Request, policy: Policy) -> bool:
    """Say whether a request claims an emergency and its operator could break the glass, whoever the person is."""
    roles = roles_in_force(request.caller, policy, request.at)
    return request.emergency is not None and not _emergency_refusals(request, roles, policy)


def _ordinary(
    request: Request,
    roles: frozenset[str],
    facts: SubjectFacts,
    policy: Policy,
    used: Mapping[str, int],
    trace: list[str],
) -> Decision:
    reasons = _request_refusals(request, roles, policy)
    trace.append(_step("request", reasons))
    if reasons:
        return _denied(policy, reasons, trace)
    asked = frozenset(request.fields)
    fitting = fitting_grants(request, roles, asked, policy, used, trace)
    if isinstance(fitting, str):
        return _denied(policy, (fitting,), trace)
    views = [view_of(request, asked, grant, roles, policy, request.basis) for grant in fitting]
    if not _opened(request, views):
        trace.append("fields:none")
        best = narrowest(views)
        withheld = _withheld(request, _NOTHING, (view.stopped for view in views))
        return _denied(policy, ("fields",), trace, ref=best.grant.ref, withheld=withheld)
    reasons = subject.refusals(request, facts, policy, request.basis)
    trace.append(_step("person", reasons))
    if reasons:
        withheld = dict.fromkeys(request.fields, "objection") if "objection" in reasons else {}
        return _denied(policy, reasons, trace, hides_subject=True, ref=views[0].grant.ref, withheld=withheld)
    return _release(request, views, facts, policy, trace)


def _opened(request: Request, views: list[View]) -> bool:
    """Say whether the request alone opens anything."""
    if request.basis != CONSENT:
        return bool(shared(views))
    # An agreement narrows only if the person consented under it, which is looked at with the person.
    return any(view.open for view in views if request.agreement in (None, view.grant.ref.code))


def _request_refusals(request: Request, roles: frozenset[str], policy: Policy) -> tuple[str, ...]:
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
        roles.isdisjoint(policy.roles_by_action.get(request.action, _NOTHING))
        or not _action_fits(request.action, request.dataset)
        or (for_another and roles.isdisjoint(policy.intermediaries))
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


def _release(request: Request, views: list[View], facts: SubjectFacts, policy: Policy, trace: list[str]) -> Decision:
    """Release what all agreements open, on consent only what the person opened too."""
    consents: dict[str, UUID] = {}
    if request.basis == CONSENT:
        views = _consented(request, views, facts, trace, consents) or views
        if not consents:
            closed = ({**view.stopped, **dict.fromkeys(view.open, "consent-scope")} for view in views)
            withheld = _withheld(request, _NOTHING, closed)
            ref = narrowest(views).grant.ref
            return _denied(policy, ("consent",), trace, hides_subject=True, ref=ref, withheld=withheld)
    released, best = shared(views), narrowest(views).grant
    if len(views) > 1:
        trace.append("narrower:" + ",".join(view.grant.ref.code for view in views))
    withheld = _withheld(request, released, (view.stopped for view in views))
    if not released:
        return _denied(policy, ("consent",), trace, hides_subject=True, ref=best.ref, withheld=withheld)
    obligations = [AUDIT_BEFORE_RELEASE, NO_ONWARD_SHARING]
    if not released.isdisjoint(best.sensitive):
        obligations.append(WATERMARK)
    return _permitted(
        request,
        views,
        request.basis,
        released,
        facts,
        policy,
        trace,
        withheld=withheld,
        consent=consents.get(best.ref.code),
        obligations=obligations,
    )


def _consented(
    request: Request, views: list[View], facts: SubjectFacts, trace: list[str], consents: dict[str, UUID]
) -> list[View]:
    """Return the agreements under which a consent is in force, each opening what the person opened by it."""
    found = []
    for view in views:
        code = view.grant.ref.code
        if request.agreement not in (None, code):
            continue
        consent, why = subject.consent_in_force(request, view.grant, facts)
        trace.append(f"consent:{code}:{why}")
        if consent is None:
            continue
        consents[code] = consent.id
        stopped = dict.fromkeys(view.open - consent.fields, "consent-scope")
        for name, label in view.grant.sensitive.items():
            if name in view.open and label not in consent.labels:
                stopped[name] = "consent-sensitive"
        found.append(View(view.grant, view.open.difference(stopped), {**view.stopped, **stopped}))
    return found


def _emergency(
    request: Request,
    claim: EmergencyClaim,
    roles: frozenset[str],
    facts: SubjectFacts,
    policy: Policy,
    trace: list[str],
    *,
    hides_subject: bool,
) -> Decision:
    """Break the glass: the small set of fields of an emergency clause, for one person, or the reason why not.

    What was denied over the person must not come out by claiming an emergency, so it stays hidden here.
    """
    reasons = _emergency_refusals(request, roles, policy)
    trace.append(_step("emergency", reasons))
    if reasons:
        return _denied(policy, reasons, trace, hides_subject=hides_subject)
    clauses = _emergency_clauses(request, roles, policy)
    if not clauses:
        trace.append("clause:none")
        return _denied(policy, ("emergency-clause",), trace, hides_subject=hides_subject)
    best = narrowest(clauses).grant
    basis = min(best.norms.keys() & policy.emergency_bases)
    reasons = subject.refusals(request, facts, policy, basis)
    user = request.caller.user
    for glass in facts.glasses:
        mine = (glass.institution, glass.user, glass.dataset) == (request.caller.institution, user, request.dataset)
        if mine and glass.incident == claim.incident and glass.expires_at <= request.at:
            reasons = (*reasons, "emergency-expired")
    trace.append(_step("person", reasons))
    if reasons:
        return _denied(policy, reasons, trace, hides_subject=True, ref=best.ref)
    released = shared(clauses)
    return _permitted(
        request,
        clauses,
        basis,
        released,
        facts,
        policy,
        trace,
        withheld={name: "emergency-scope" for name in request.fields if name not in released},
        obligations=[AUDIT_BEFORE_RELEASE, NO_ONWARD_SHARING, WATERMARK, NOTIFY_OFFICER, NOTIFY_SUBJECT, REVIEW_DUE],
        emergency=True,
    )


def _emergency_refusals(request: Request, roles: frozenset[str], policy: Policy) -> tuple[str, ...]:
    """Collect what keeps this operator from breaking the glass, whoever the person is."""
    caller = request.caller
    reasons = []
    acting = request.action == FETCH and request.requester == caller.institution
    if not acting or caller.user is None or roles.isdisjoint(policy.roles_by_action[EMERGENCY_ACTION]):
        reasons.append("emergency-role")
    login = caller.authenticated_at
    fresh = login is not None and timedelta(0) <= request.at - login <= FRESH_LOGIN
    if not fresh or assurance_of(caller) < EMERGENCY_ASSURANCE:
        reasons.append("emergency-login")
    waiting = policy.unreviewed.get((caller.institution, caller.holder_of_roles))
    if waiting is not None and request.at - waiting > REVIEW_WITHIN:
        reasons.append("emergency-suspended")
    return tuple(reasons)


def _emergency_clauses(request: Request, roles: frozenset[str], policy: Policy) -> list[View]:
    """Return the agreements with an emergency clause that cover the request, each with what it opens of it."""
    asked = frozenset(request.fields)
    views = []
    for grant in policy.grants.get((request.requester, request.holder, request.dataset), ()):
        bases = grant.norms.keys() & policy.emergency_bases
        covers = bases and in_force(grant, request) and request.purpose in grant.purposes
        # Unlike an ordinary one, an agreement with nothing of what was asked narrows nothing; volumes do not count.
        covers = covers and not asked.isdisjoint(grant.visible)
        if covers and not roles.isdisjoint(grant.roles) and assurance_of(request.caller) >= grant.minimum_assurance:
            views.append(view_of(request, asked, grant, roles, policy, min(bases)))
    return views if views and shared(views) else []


def _permitted(
    request: Request,
    views: list[View],
    basis: str,
    released: frozenset[str],
    facts: SubjectFacts,
    policy: Policy,
    trace: list[str],
    *,
    withheld: Mapping[str, str],
    obligations: list[str],
    consent: UUID | None = None,
    emergency: bool = False,
) -> Decision:
    """Issue the permit, with what all agreements together ask for: how fields leave and how long they may be kept."""
    grant = narrowest(views).grant
    treatments = strictest(how for view in views if (how := treatments_of(request, view.grant, policy)))
    terms = [view.grant.retention_days for view in views if view.grant.retention_days is not None]
    if terms:
        obligations.append(RETENTION)
    decision_id = uuid7()
    effect: Effect = "permit_redacted" if withheld else "permit"
    trace.append(f"effect:{effect}")
    return Decision(
        id=decision_id,
        effect=effect,
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
        agreement=grant.ref,
        norm=grant.norms[basis],
        consent=consent,
        obligations=tuple(obligations),
        policy_version=policy.version,
        treatments={name: how for name, how in treatments.items() if name in released} if treatments else NO_TREATMENT,
        retention_days=min(terms, default=None),
        emergency=emergency,
        trace=tuple(trace),
    )


def _withheld(request: Request, released: frozenset[str], stopped: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Say of each field asked and not released why, as the first agreement that stops it has it."""
    if len(released) == len(request.fields):
        return {}
    why: dict[str, str] = {}
    for reasons in stopped:
        why = {**reasons, **why}
    return {name: why[name] for name in request.fields if name not in released}


def _step(rule: str, reasons: tuple[str, ...]) -> str:
    return f"{rule}:{','.join(reasons) or 'ok'}"


def _denied(
    policy: Policy,
    reasons: tuple[str, ...],
    trace: list[str],
    *,
    hides_subject: bool = False,
    ref: AgreementRef | None = None,
    withheld: Mapping[str, str] = NO_TREATMENT,
) -> Decision:
    return Decision(
        id=uuid7(),
        effect="deny",
        permit=None,
        released=_NOTHING,
        withheld=withheld,
        reasons=reasons,
        hides_subject=hides_subject,
        agreement=ref,
        norm=None,
        consent=None,
        obligations=(),
        policy_version=policy.version,
        treatments=NO_TREATMENT,
        retention_days=None,
        emergency=False,
        trace=(*trace, "effect:deny"),
    )
