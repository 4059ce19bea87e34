"""The errors the vocabulary itself can raise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with a message: where (JSON Pointer, RFC 6901), which rule, and what to do."""

    pointer: str
    rule: str
    message: str


class SchemaError(ValueError):
    """A message does not follow its schema; carries every violation found."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("; ".join(f"{v.pointer or '/'}: {v.rule}" for v in violations))
        self.violations = violations


class InvalidIdentifier(ValueError):
    """A cédula, RUC or other identifier is not well-formed. The text never repeats the value."""


class UnknownCode(ValueError):
    """A code is not in its list."""

    def __init__(self, code_list: str) -> None:
        super().__init__(f"unknown code in list {code_list}")
        self.code_list = code_list


class DecryptionError(ValueError):
    """A ciphertext was changed, belongs to another row, or its key is gone (erased)."""
