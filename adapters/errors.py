"""Errors of this room: those that stop a start or a command, and those that carry a failed attempt to its outcome.

What a producer answers is an outcome, never an error: the latter are raised and caught inside this package.
"""

from __future__ import annotations


class ManifestError(ValueError):
    """A manifest or its connection cannot be used; names file, line (where one is to blame) and field."""

    def __init__(self, file: str, field: str, what: str, line: int | None = None) -> None:
        place = file if line is None else f"{file}:{line}"
        super().__init__(f"{place}: {field}: {what}")
        self.file, self.field, self.what, self.line = file, field, what, line


class UnknownAdapter(KeyError):
    """No adapter has this name, holds this dataset or serves this institution."""


class PermitMismatch(RuntimeError):
    """A verb was called with a permit for something else: a fault in the caller, never a producer's doing."""


class CallFailed(Exception):
    """An attempt got no usable answer.

    ``acted``: the producer may have acted on it; ``again``: worth repeating at once; ``retry_after_s`` is the
    producer's own wish.
    """

    def __init__(
        self, reason: str, *, acted: bool = True, again: bool = True, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.acted, self.again, self.retry_after_s = reason, acted, again, retry_after_s


class OurLimit(CallFailed):
    """Our own rate leaves no time for another question: nothing was asked, and nothing is learnt of the producer."""

    def __init__(self) -> None:
        super().__init__("rate reached", acted=False, again=False, retry_after_s=1.0)


class ContractBroken(Exception):
    """A producer answered something that is not its contract; ``reason`` names the rule, never the content."""

    def __init__(self, reason: str, *, acted: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.acted = reason, acted
