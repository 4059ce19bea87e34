"""The error of a migration that has no way from the old tables to the new ones."""

from __future__ import annotations


class CannotCarryOver(RuntimeError):
    """The database holds a log of a release before this one, which cannot be gone on with; nothing was changed."""
