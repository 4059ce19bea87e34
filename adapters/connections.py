"""Decides where each producer's system is, and what secret opens it: both belong to a deployment, not to a manifest."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapters.manifest import Manifest
from adapters.yamlfile import YamlFile, read_yaml
from schemas.text import _

_SCHEMES = {"rest": ("https", "http"), "soap": ("https", "http"), "file": ("sftp",)}
_KEYS = {"address", "host_key"}


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a system is; ``host_key`` is the public key of an SSH host, in OpenSSH form."""

    address: str
    host_key: str
    source: YamlFile


def read_connections(file: Path | None, manifests: Iterable[Manifest]) -> dict[str, Connection]:
    """Read the connections, by manifest name; none where there is no file.

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
        if "address" not in entry or ("host_key" in entry) != (manifest.kind == "file"):
            source.refuse([name], _("se esperaba address y, para SFTP, host_key"))
        _check_address(source, name, entry, manifest.kind)
        found[name] = Connection(entry["address"].rstrip("/"), entry.get("host_key", ""), source)
    return found


def _check_address(source: YamlFile, name: str, entry: Mapping[str, Any], kind: str) -> None:
    where = [name, "address"]
    try:
        parts = urlsplit(entry["address"])
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        source.refuse(where, _("no es una dirección"))
    if parts.scheme not in _SCHEMES[kind] or not host:
        source.refuse(where, _("se esperaba una dirección {scheme}://").format(scheme=_SCHEMES[kind][0]))
    if "@" in parts.netloc or parts.query or parts.fragment:
        source.refuse(where, _("una dirección no lleva usuario, clave ni parámetros"))
    if parts.scheme == "http" and not _private(host):
        source.refuse(where, _("http:// solo dentro de una red privada; se esperaba https://"))


def _private(host: str) -> bool:
    """Say whether a host is this machine's, of a private network, or named without a domain, as inside a cluster."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host


def read_secret(manifest: Manifest, folder: Path | None) -> str:
    """Return the secret the manifest names; raise :class:`~adapters.errors.ManifestError` where it is not there."""
    name = manifest.auth["secret"]
    try:
        secret = ((folder or Path()) / name).read_text(encoding="utf-8").strip() if folder else ""
    except (OSError, UnicodeDecodeError):
        secret = ""
    if not secret or not secret.isprintable():
        manifest.source.refuse(["auth", "secret"], _("no hay un archivo de secreto {name}").format(name=name))
    return secret
