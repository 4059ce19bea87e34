"""Reads whose cosignatures our log needs (C2SP tlog-policy without log lines), and writes what others verify by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from audit.checkpoint import Signer
from audit.verify import ED25519, Key, NotValid, Policy, format_key, parse_policy
from gateway.settings import SettingsError
from schemas.text import _, translated

_SETTING = "SIIS_WITNESSES"


@dataclass(frozen=True, slots=True)
class KnownWitness:
    """A witness of ours: its name in the file, its key, and the address ``add-checkpoint`` is put behind."""

    name: str
    key: Key
    address: str

    @property
    def id(self) -> str:
        """What it signs as, name and key id: what tells witnesses apart whatever a file calls them."""
        return f"{self.key.name}+{self.key.id.hex()}"


@dataclass(frozen=True, slots=True)
class Witnesses:
    """The witnesses of a deployment and how many of them are needed."""

    known: tuple[KnownWitness, ...]
    policy: Policy

    def quorum_met(self, ids: Iterable[str]) -> bool:
        """Say whether cosignatures of these witnesses (by :attr:`KnownWitness.id`) are enough."""
        given = set(ids)
        return self.policy.quorum_met({witness.name for witness in self.known if witness.id in given})


def read_witnesses(path: Path) -> Witnesses:
    """Read the file; raises :class:`~gateway.settings.SettingsError` with the line and the reason."""
    text = _text(path)
    try:
        policy = parse_policy(text)
    except NotValid as error:
        raise _wrong(path, error.record, translated(error.what)) from None
    known = []
    for number, words in _lines(text):
        if words[0] == "log":
            raise _wrong(path, number, _("las líneas log no van aquí: las claves del registro las pone la pasarela"))
        if words[0] == "witness":
            address = words[3].rstrip("/") if len(words) == 4 else ""
            if not _can_be_asked(address):
                raise _wrong(path, number, _("falta la dirección del testigo, https:// o http://"))
            known.append(KnownWitness(words[1], policy.witnesses[words[1]], address))
    if policy.quorum == "none":
        raise _wrong(path, None, _("hace falta un quórum de testigos; sin testigos, quite el ajuste"))
    return Witnesses(tuple(known), policy)


def policy_text(signer: Signer, logs: Iterable[int], witnesses_file: Path | None) -> str:
    """Return the whole policy (C2SP tlog-policy) to verify our logs by: a ``log`` line for each year, the witnesses.

    Where the witnesses are is not told. Raises :class:`~gateway.settings.SettingsError` for a file that cannot be used.
    """
    lines = []
    for log in logs:
        key = signer.of(log).verifier
        lines.append(f"log {format_key(key.name, ED25519, key.key)}")
    if witnesses_file is None:
        lines.append("quorum none")
    else:
        read_witnesses(witnesses_file)
        for _number, words in _lines(_text(witnesses_file)):
            lines.append(" ".join(words[:3] if words[0] == "witness" else words))
    return "".join(f"{line}\n" for line in lines)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _wrong(path, None, error.strerror or type(error).__name__) from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        # The format takes any bytes; a file of ours goes into JSON as well.
        raise _wrong(path, data.count(b"\n", 0, error.start) + 1, _("no es UTF-8")) from None


def _lines(text: str) -> list[tuple[int, list[str]]]:
    """Return the lines that say something, with their numbers, as words."""
    numbered = enumerate((line.strip(" \t") for line in text.split("\n")), 1)
    return [(number, re.split("[ \t]+", line)) for number, line in numbered if line and not line.startswith("#")]


def _can_be_asked(address: str) -> bool:
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 — raises for what is no port
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    return parts.scheme in ("https", "http") and bool(parts.hostname) and plain


def _wrong(path: Path, line: int | None, reason: str) -> SettingsError:
    place = str(path) if line is None else f"{path}:{line}"
    return SettingsError([(_SETTING, f"{place}: {reason}")])
