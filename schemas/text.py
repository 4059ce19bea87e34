"""Texts that persons read: written in Spanish, translated through gettext."""

from __future__ import annotations

import gettext
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

LANGUAGES = ("es", "en")
_LOCALE = Path(__file__).parent / "locale"
_language: ContextVar[str] = ContextVar("siis_language", default="es")


@lru_cache(maxsize=len(LANGUAGES))
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == "es":
        return gettext.NullTranslations()
    return gettext.translation("siis", _LOCALE, languages=[language])


def set_language(language: str) -> None:
    """Choose the language (``es`` or ``en``) of the texts of this task or thread; raise ValueError for another."""
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}")
    _language.set(language)


def language() -> str:
    """Return the language in force."""
    return _language.get()


def _(message: str) -> str:
    """Return the text in the language in force; the Spanish source itself where no translation exists."""
    return translated(message)


def translated(message: str) -> str:
    """Do as :func:`_` for a text that stands elsewhere: marked in a module that cannot translate (audit.verify)."""
    return _catalogue(_language.get()).gettext(message)


def printable(text: str) -> str:
    """Return a text with every control character shown as a dot."""
    return "".join(character if character.isprintable() else "·" for character in text)
