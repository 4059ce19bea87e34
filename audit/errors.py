"""The errors this room raises. None carries personal data: they end up in log lines and problem titles."""

from __future__ import annotations

from uuid import UUID


class AuditError(Exception):
    """The log could not do what was asked."""


class AuditUnavailable(AuditError):
    """The entry is not known to be in the log (database down, queue full, time over): nothing may be released."""


class DuplicateEntry(AuditError):
    """An entry with this id is in the log already."""

    def __init__(self, entry_id: UUID) -> None:
        super().__init__(f"entry {entry_id} is in the log already")
        self.entry_id = entry_id


class SubjectErased(AuditError):
    """The key of this subject was destroyed: no further detail about the person can be written or read."""


class LogBroken(AuditError):
    """The stored log contradicts itself, so it is neither continued nor signed; ``check_log`` says where."""


class UnsafeKeyFile(ValueError):
    """A signing key cannot be used: other users can read the file, or it does not hold an Ed25519 private key."""
