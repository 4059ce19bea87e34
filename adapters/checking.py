"""Decides whether manifests could go into use: each by itself, beside the others, and with its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters.connections import Connection, read_connections, read_secret, secret_places
from adapters.errors import ManifestError
from adapters.kinds import kind_of
from adapters.manifest import Manifest, load_manifest
from adapters.registry import SHIPPED, connect, refuse_twins, schemes_of


def check_files(files: Sequence[Path], connections: Path | None, secrets: Path | None) -> Iterator[tuple[Path, str]]:
    """Give each file with the first thing wrong in it (file, line, field), empty for nothing.

    A twin is looked for among the files and the manifests that come with the gateway. With ``connections`` the file of
    connections is checked, and every connection in it; with ``secrets``, that each secret named is there.
    """
    given = {file.resolve() for file in files}
    good = [load_manifest(file) for file in sorted(SHIPPED.glob("*.yaml")) if file.resolve() not in given]
    checked: list[tuple[Path, Manifest | None, str]] = []
    for file in files:
        try:
            manifest = load_manifest(file)
            kind_of(manifest).check(manifest)
            refuse_twins([*good, manifest])
        except ManifestError as error:
            checked.append((file, None, _told(error, file)))
        else:
            good.append(manifest)
            checked.append((file, manifest, ""))
    known: dict[str, Connection] = {}
    if connections is not None:
        try:
            known = read_connections(connections, good, schemes_of)
        except ManifestError as error:
            yield connections, _told(error, connections)
    for file, read, wrong in checked:
        if read is None:
            yield file, wrong
            continue
        try:
            _check_connection(read, known.get(read.name), secrets)
        except ManifestError as error:
            yield file, _told(error, file, connections)
        else:
            yield file, ""


def _check_connection(manifest: Manifest, connection: Connection | None, secrets: Path | None) -> None:
    if secrets is not None:
        for place in secret_places(manifest):
            read_secret(manifest, secrets, *place)
    if connection is not None:
        asyncio.run(_connected(manifest, connection, secrets))


async def _connected(manifest: Manifest, connection: Connection, secrets: Path | None) -> None:
    """Make the adapter and let it go: nothing is opened by that, and what cannot be used is refused."""
    await connect(manifest, connection, secrets).close()


def _told(error: ManifestError, *files: Path | None) -> str:
    """Name the file to blame as it was given."""
    named = next((str(file) for file in files if file is not None and file.name == error.file), error.file)
    return str(ManifestError(named, error.field, error.what, error.line))
