"""What the institutions that only answer questions have in common: everybody's dossier, found by cédula."""

from __future__ import annotations

import hmac
import unicodedata

from adapters.simulator.dossier import archive
from adapters.simulator.people import cedula_key
from adapters.simulator.records import Dossier
from adapters.simulator.settings import Office, Settings
from adapters.simulator.web import Request


class Register(Office):
    """An institution that knows something of everybody."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.archive = archive(settings.persons, settings.seed)

    def find(self, cedula: str) -> Dossier | None:
        """Return somebody's dossier; ``None`` for a number nobody has, and for what is no number."""
        return self.archive.get(cedula_key(cedula) or "")

    def has_key(self, given: bytes) -> bool:
        """Say whether a key or token is the right one."""
        return hmac.compare_digest(given, self.settings.password.encode())

    def has_bearer(self, request: Request) -> bool:
        """Check a bearer token that never changes."""
        kind, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        return kind.lower() == b"bearer" and self.has_key(token)


def same_name(one: str, other: str) -> bool:
    """Compare names as a clerk does: without accents, tildes, capitals and double spaces."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFD", name.casefold())
    return " ".join("".join(letter for letter in letters if not unicodedata.combining(letter)).split())
