"""Errors of the consent room: what cannot be stored, and a policy too old to decide by. A denial is not an error."""

from __future__ import annotations

from collections.abc import Iterable


class InvalidAgreement(ValueError):
    """An agreement breaks a rule; names its code, the field, what is wrong, and the codes that could stand there."""

    def __init__(self, code: str, field: str, what: str, allowed: Iterable[str] = ()) -> None:
        super().__init__(f"agreement {code}: {field}: {what}")
        self.code, self.field, self.what, self.allowed = code, field, what, tuple(sorted(allowed))


class UnknownAgreement(LookupError):
    """No agreement in force has this code."""


class InvalidRecord(ValueError):
    """What is to be stored about a person breaks a rule: the field, a stable code of what is wrong, and the codes that
    could stand there, if it is one of a list.
    """

    def __init__(self, field: str, what: str, allowed: Iterable[str] = ()) -> None:
        super().__init__(f"{field}: {what}")
        self.field, self.what, self.allowed = field, what, tuple(sorted(allowed))


class InvalidConsent(InvalidRecord):
    """A consent goes beyond what its agreement asks for, was given by nobody who may, or lacks part of its proof."""


class ConsentNotInForce(LookupError):
    """The consent record does not exist, or was already withdrawn or refused."""


class PolicyUnavailable(RuntimeError):
    """The policy was never loaded, or not refreshed for too long: nothing may be decided by it."""


class NotEntitled(Exception):
    """Who acts holds no role, in force and in that institution, that allows the change."""


class NotInForce(LookupError):
    """No such record is in force, or it is not the actor's to see: the two look the same."""


class RoleRefused(ValueError):
    """A role or compartment cannot be granted or revoked; ``reason`` is a stable code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EmergencyRefused(ValueError):
    """A verdict on an emergency cannot be given; ``reason`` is a stable code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EmergencyEnded(LookupError):
    """The emergency access of this incident is over: its day, or the verdict on it."""


class StepRefused(RuntimeError):
    """An agreement does not allow this step now; ``reason`` is a code, ``possible`` are the steps it allows."""

    def __init__(self, code: str, step: str, reason: str, what: str, possible: Iterable[str] = ()) -> None:
        super().__init__(f"agreement {code}: {step}: {reason}")
        self.code, self.step, self.reason, self.what, self.possible = code, step, reason, what, tuple(possible)


class TextPublished(ValueError):
    """This version of a consent text is published in this language with other words, which never change."""
