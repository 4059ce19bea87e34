"""Decides where each producer's system is, and what secret opens it: both belong to a deployment, not to a manifest."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapters.manifest import Manifest
from adapters.yamlfile import YamlFile, read_yaml
from schemas.text import _

_KEYS = {"address", "host_key"}
_HOSTLESS = {"file", "sqlite"}


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a system is; ``host_key`` is the public key of an SSH host, in OpenSSH form."""

    address: str
    host_key: str
    source: YamlFile


def read_connections(
    file: Path | None, manifests: Iterable[Manifest], schemes_of: Callable[[Manifest], tuple[str, ...]]
) -> dict[str, Connection]:
    """Read the connections, by manifest name; none where there is no file. ``schemes_of`` tells a kind's schemes.

    Raises :class:`~adapters.errors.ManifestError` for a name without manifest, an unknown key, and an address of
    another scheme than the kind's, with a password in it, or in clear text across a public network.
    """
    if file is None or not file.exists():
        return {}
    source, known = read_yaml(file), {manifest.name: manifest for manifest in manifests}
    found = {}
    for name, entry in source.content.items():
        manifest = known.get(name)
        if manifest is None:
            source.refuse([name], _("no hay manifiesto con este nombre"))
        if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
            source.refuse([name], _("se esperaba address y, para SFTP, host_key"))
        for key in entry.keys() - _KEYS:
            source.refuse([name, key], _("este campo no existe"))
        if "address" not in entry:
            source.refuse([name], _("se esperaba address y, para SFTP, host_key"))
        _check_address(source, name, entry, schemes_of(manifest))
        if ("host_key" in entry) != entry["address"].startswith("sftp:"):
            source.refuse([name], _("se esperaba address y, para SFTP, host_key"))
        found[name] = Connection(entry["address"].rstrip("/"), entry.get("host_key", ""), source)
    return found


def _check_address(source: YamlFile, name: str, entry: Mapping[str, Any], schemes: tuple[str, ...]) -> None:
    where = [name, "address"]
    try:
        parts = urlsplit(entry["address"])
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        source.refuse(where, _("no es una dirección"))
    # A folder or a database file of this machine has no host.
    if parts.scheme not in schemes or not (host or parts.scheme in _HOSTLESS):
        source.refuse(where, _("se esperaba una dirección {scheme}://").format(scheme=schemes[0]))
    if "@" in parts.netloc or parts.query or parts.fragment:
        source.refuse(where, _("una dirección no lleva usuario, clave ni parámetros"))
    if parts.scheme == "http" and not private(host):
        source.refuse(where, _("http:// solo dentro de una red privada; se esperaba https://"))


def private(host: str) -> bool:
    """Say whether a host is this machine's, of a private network, or named without a domain, as inside a cluster."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host


def secret_places(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the places of a manifest that name a secret."""
    content = manifest.source.content
    places = [("auth", "secret"), ("tls", "certificate"), ("tls", "ca")]
    places += [("security", name) for name in ("password", "certificate", "partner", "saml")]
    return [(block, name) for block, name in places if name in content.get(block, ())]


def read_secret(manifest: Manifest, folder: Path | None, *where: str) -> str:
    """Return the secret named at a place of a manifest, ``("auth", "secret")`` as a rule.

    Raises :class:`~adapters.errors.ManifestError` where it is not there, or empty.
    """
    name: Any = manifest.source.content
    for key in where:
        name = name[key]
    try:
        secret = (folder / name).read_text(encoding="utf-8").strip() if folder else ""
    except (OSError, UnicodeDecodeError):
        secret = ""
    # Certificates and assertions have lines; a key or password has one, and control characters belong in none.
    document = secret.startswith(("-----BEGIN", "<"))
    line = secret.replace("\r", "").replace("\n", "").replace("\t", "") if document else secret
    if not line or not line.isprintable():
        manifest.source.refuse(where, _("no hay un archivo de secreto {name}").format(name=name))
    return secret
