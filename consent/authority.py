"""Which of the roles that a caller comes with count: those its institution may vouch for, and those granted here."""

from __future__ import annotations

from datetime import datetime

from consent.models import Caller
from consent.policy import Policy

CITIZEN = "citizen"
_CITIZEN_ONLY = frozenset({CITIZEN})


def roles_in_force(caller: Caller, policy: Policy, at: datetime) -> frozenset[str]:
    """Return the roles of a caller that count now.

    A role that somebody must grant counts only for a verified operator who holds it here and acts in it, or for a
    system that holds it itself. Somebody who comes with a token of their own is the person concerned and nothing else.
    """
    if caller.person is not None:
        return caller.roles & _CITIZEN_ONLY
    vouched = caller.roles - policy.granted_roles - _CITIZEN_ONLY
    held = policy.assignments.get((caller.institution, caller.holder_of_roles))
    if not held:
        return vouched
    in_force = frozenset(each.role for each in held if each.valid_to is None or at < each.valid_to)
    # Whoever holds a role here is held to what it excludes, in whichever role they come.
    for role in in_force:
        vouched -= policy.excluded_by[role]
    if caller.user is None:
        return vouched | in_force
    return vouched | (in_force & caller.roles) if caller.user_verified else vouched


def may(caller: Caller, action: str, policy: Policy, at: datetime) -> bool:
    """Say whether a caller may do something that is no exchange of data: keep agreements, grant roles, review."""
    if caller.institution in policy.suspended:
        return False
    return not roles_in_force(caller, policy, at).isdisjoint(policy.roles_by_action.get(action, frozenset()))
