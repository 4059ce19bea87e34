"""The one way a FHIR message is refused: where, what was expected, and FHIR's own class of problem."""

from __future__ import annotations


class FhirError(ValueError):
    """A FHIR message cannot be taken.

    ``pointer`` is a JSON Pointer (RFC 6901) into the received document, ``what`` says in the reader's language what
    was expected and never repeats a received value, ``code`` is a code of the R4 value set *issue-type*.
    """

    def __init__(self, pointer: str, what: str, code: str = "invalid") -> None:
        super().__init__(f"{pointer or '/'}: {what}")
        self.pointer, self.what, self.code = pointer, what, code
