"""Which agreements cover a request, what each opens of it, and how fields leave: all that the request alone decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from consent.models import FETCH, Caller, Request
from consent.policy import Grant, LabelRule, Policy

CONSENT = "consent"
LOWEST_ASSURANCE = 1
# What an agreement is compared on, in this order; the furthest one reached is the reason given.
STAGES = ("agreement", "purpose", "basis", "role-in-agreement", "assurance", "volume", "fields")
_FITS = len(STAGES)
# How little a treatment shows; where several apply, the one that shows least.
_STRICTNESS = {"district": 1, "age-band": 2, "mask": 3}
_NOTHING: frozenset[str] = frozenset()


class View(NamedTuple):
    """What one agreement opens of what was asked, as far as the request alone decides, and why not the rest."""

    grant: Grant
    open: frozenset[str]
    stopped: Mapping[str, str]


def fitting_grants(
    request: Request,
    roles: frozenset[str],
    asked: frozenset[str],
    policy: Policy,
    used: Mapping[str, int],
    trace: list[str],
) -> list[Grant] | str:
    """Return the agreements that cover the request, or the reason that stopped the one cited, or that came furthest.

    Whoever cites an agreement asks under that one; the others that cover the request as well can only narrow it.
    """
    acting = roles & policy.roles_by_action[request.action]
    basis_counts = request.basis == CONSENT or request.basis in policy.public_duty
    assurance = assurance_of(request.caller)
    fitting: list[Grant] = []
    furthest = cited = 0
    exhausted = False
    for grant in policy.grants.get((request.requester, request.holder, request.dataset), ()):
        if not in_force(grant, request):
            stage = 0
        elif request.purpose not in grant.purposes:
            stage = 1
        elif not basis_counts or request.basis not in grant.norms:
            stage = 2
        elif acting.isdisjoint(grant.roles):
            stage = 3
        elif assurance < grant.minimum_assurance:
            stage = 4
        elif grant.volume_per_day is not None and used.get(grant.ref.code, 0) >= grant.volume_per_day:
            stage, exhausted = 5, True
        elif asked.isdisjoint(grant.visible):
            stage = 6
        else:
            stage = _FITS
        # An agreement that lists nothing of what was asked narrows the others too: else a caller would ask field by
        # field. Not on consent, where the person opened each by itself.
        if stage == _FITS or (stage == _FITS - 1 and request.basis != CONSENT):
            fitting.append(grant)
        trace.append(f"agreement:{grant.ref.code}@{grant.ref.version}:{STAGES[stage] if stage < _FITS else 'fits'}")
        furthest = max(furthest, stage)
        if grant.ref.code == request.agreement:
            cited = stage
    if request.agreement is not None and cited < _FITS:
        return STAGES[cited]
    if exhausted and request.basis != CONSENT:
        # The narrower does not stop narrowing by being used up.
        return "volume"
    return fitting or STAGES[furthest]


def in_force(grant: Grant, request: Request) -> bool:
    """Say whether an agreement is valid now and for the way the request came."""
    return (
        grant.starts_at <= request.at
        and (grant.ends_at is None or request.at < grant.ends_at)
        and request.channel in grant.channels
    )


def assurance_of(caller: Caller) -> int:
    """An operator nobody verified is a claim, good for the lowest assurance only (DESIGN 9.6)."""
    return caller.assurance if caller.user_verified else min(caller.assurance, LOWEST_ASSURANCE)


def view_of(
    request: Request, asked: frozenset[str], grant: Grant, roles: frozenset[str], policy: Policy, basis: str
) -> View:
    """Say what one agreement opens: its fields, less those whose label asks for more than this request has."""
    stopped: dict[str, str] = {}
    if not asked <= grant.visible:
        for name in asked - grant.visible:
            stopped[name] = "label-not-covered" if name in grant.agreed else "not-in-agreement"
    guarded = grant.guarded.keys() & asked
    if guarded:
        assurance, held = assurance_of(request.caller), _compartments(request, grant, roles, policy)
        for name in guarded:
            why = _label_refusal(grant.guarded[name], assurance, held, basis)
            if why:
                stopped[name] = why
    if request.purpose in policy.unidentified:
        shown = policy.reductions.get(request.dataset)
        nameless = asked if shown is None else {name for name in asked if name in shown and shown[name] is None}
        stopped |= dict.fromkeys(nameless, "not-identified")
    if request.action != FETCH:
        # Only a disclosure passes through the hands that reduce a field.
        stopped |= dict.fromkeys(asked & treatments_of(request, grant, policy).keys(), "not-identified")
    return View(grant, asked.difference(stopped) if stopped else asked, stopped)


def _compartments(request: Request, grant: Grant, roles: frozenset[str], policy: Policy) -> frozenset[str]:
    """Return the labels held by the roles that act; the recipient's: a platform in between opens nothing by its own."""
    return _NOTHING.union(
        *(policy.compartments.get((request.requester, role), _NOTHING) for role in roles & grant.roles)
    )


def _label_refusal(rule: LabelRule, assurance: int, held: frozenset[str], basis: str) -> str | None:
    """Say what a field's label asks for that the request does not have: basis, assurance or a role's compartment."""
    if rule.bases and basis not in rule.bases:
        return "label-basis"
    if assurance < rule.minimum_assurance:
        return "label-assurance"
    return "compartment" if rule.compartment and rule.label not in held else None


def treatments_of(request: Request, grant: Grant, policy: Policy) -> Mapping[str, str]:
    """Return how fields leave that do not leave as they are, by the agreement or because nobody needs a name."""
    if request.purpose not in policy.unidentified:
        return grant.treatments
    shown = policy.reductions.get(request.dataset, {})
    reduced = {name: how for name, how in shown.items() if how is not None and how != "keep"}
    return strictest([reduced, grant.treatments])


def strictest(treatments: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Merge treatments; for each field the one that shows least."""
    merged: dict[str, str] = {}
    for each in treatments:
        for name, how in each.items():
            if name not in merged or _STRICTNESS[how] > _STRICTNESS[merged[name]]:
                merged[name] = how
    return merged


def shared(views: list[View]) -> frozenset[str]:
    """Return the fields that all agreements open: where two contradict each other, the narrower wins."""
    return views[0].open if len(views) == 1 else frozenset.intersection(*(view.open for view in views))


def narrowest(views: list[View]) -> View:
    """Return the agreement to cite: of those that open least the one with the smallest volume, then the first code."""
    if len(views) == 1:
        return views[0]
    return min(views, key=lambda each: (len(each.open), each.grant.volume_per_day or float("inf"), each.grant.ref.code))
