"""The error that costs a whole file; what costs one row is a reject."""

from __future__ import annotations


class WrongFile(ValueError):
    """A file as a whole is not what was agreed; the text says which rule it breaks, without its content."""
