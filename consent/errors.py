"""Errors of the consent room: what cannot be stored, and a policy too old to decide by. A denial is not an error."""

from __future__ import annotations


class InvalidAgreement(ValueError):
    """An agreement breaks a rule; names its code, the field and what is wrong."""

    def __init__(self, code: str, field: str, what: str) -> None:
        super().__init__(f"agreement {code}: {field}: {what}")
        self.code, self.field, self.what = code, field, what


class UnknownAgreement(LookupError):
    """No agreement in force has this code."""


class InvalidConsent(ValueError):
    """A consent goes beyond what its agreement asks for, or lacks part of its proof; names the field."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"consent: {field}: {what}")
        self.field, self.what = field, what


class ConsentNotInForce(LookupError):
    """The consent record does not exist, or was already withdrawn or refused."""


class PolicyUnavailable(RuntimeError):
    """The policy was never loaded, or not refreshed for too long: nothing may be decided by it."""
