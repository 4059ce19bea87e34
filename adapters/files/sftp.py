"""Holds the one SSH connection to a producer's folder: the host key is the pinned one, or nothing is said to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import asyncssh

from adapters.errors import CallFailed
from adapters.files.folder import BLOCK, Entry, Session
from adapters.resilience import Call

_LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
# A server that does not say what a name stands for means a file.
_FILES = (asyncssh.FILEXFER_TYPE_REGULAR, asyncssh.FILEXFER_TYPE_UNKNOWN)


class SftpLink:
    """An SFTP session, opened when first needed and again when it was lost."""

    def __init__(self, address: str, host_key: str, username: str, password: str) -> None:
        """Raise ValueError where ``host_key`` is not a public key in OpenSSH form."""
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port or 22
        try:
            self._key = asyncssh.import_public_key(host_key)
        except asyncssh.KeyImportError as error:
            raise ValueError("not a public key") from error
        self._username, self._password = username, password
        self._lock = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None

    @asynccontextmanager
    async def session(self, call: Call) -> AsyncIterator[Session]:
        """Lend the session for a call; whatever goes wrong becomes CallFailed, a doubtful connection is dropped.

        At the call's deadline the connection is cut from outside: cancelled, the library still waits for the server to
        close its handles, and a server that hangs would hold this call, and every later one, for ever.
        """
        client = await self._open()
        cutting = asyncio.get_running_loop().call_at(call.deadline, self._drop)
        try:
            yield _Remote(client)
        except (asyncssh.Error, OSError) as error:
            if isinstance(error, asyncssh.SFTPError) and not isinstance(error, _LOST):
                raise CallFailed(f"sftp: {type(error).__name__}") from None
            self._drop()
            raise CallFailed("connection lost" if call.left_s > 0 else "timeout") from None
        except asyncio.CancelledError:
            self._drop()
            raise
        finally:
            cutting.cancel()

    async def close(self) -> None:
        """End the connection."""
        self._drop()

    async def _open(self) -> asyncssh.SFTPClient:
        async with self._lock:
            if self._client is not None and self._connection is not None and not self._connection.is_closed():
                return self._client
            try:
                self._connection = await asyncssh.connect(
                    self._host,
                    self._port,
                    username=self._username,
                    password=self._password,
                    known_hosts=([self._key], [], []),
                    server_host_key_algs=[self._key.get_algorithm()],
                    client_keys=None,
                    agent_path=None,
                    config=None,
                    preferred_auth="password",
                )
                self._client = await self._connection.start_sftp_client()
            except asyncssh.HostKeyNotVerifiable:
                raise CallFailed("host key is not the pinned one", again=False) from None
            except asyncssh.PermissionDenied:
                raise CallFailed("credentials refused", again=False) from None
            except (asyncssh.Error, OSError):
                self._drop()
                raise CallFailed("connection failed") from None
            return self._client

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.abort()
        self._connection = self._client = None


class _Remote:
    def __init__(self, client: asyncssh.SFTPClient) -> None:
        self._client = client

    async def entries(self, folder: str) -> list[Entry]:
        found = []
        for item in await self._client.readdir(folder):
            attributes = item.attrs
            if attributes.type in _FILES:
                modified = int(attributes.mtime or 0) * 1_000_000_000 + int(attributes.mtime_ns or 0)
                found.append(Entry(str(item.filename), attributes.size or 0, modified))
        return sorted(found)

    async def blocks(self, folder: str, name: str) -> AsyncGenerator[bytes, None]:
        async with self._client.open(f"{folder}/{name}", "rb") as file:
            while block := cast(bytes, await file.read(BLOCK)):
                yield block

    async def exists(self, folder: str, name: str) -> bool:
        return bool(await self._client.exists(f"{folder}/{name}"))

    async def write(self, folder: str, name: str, content: bytes) -> None:
        async with self._client.open(f"{folder}/{name}", "wb") as file:
            await file.write(content)

    async def rename(self, folder: str, name: str, new: str) -> bool:
        try:
            await self._client.rename(f"{folder}/{name}", f"{folder}/{new}")
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            # SFTP version 3 says no more than "failure" of a name already taken.
            if not await self.exists(folder, new):
                raise
            return False
        return True

    async def remove(self, folder: str, name: str) -> None:
        await self._client.remove(f"{folder}/{name}")
