"""Carries out a change to what the decision reads: who may, done once, and in the log with the change or not at all."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from audit.service import AuditLog
from consent.authority import may, roles_in_force
from consent.errors import NotEntitled
from consent.models import Actor, Caller
from consent.policy import PolicyStore
from gateway import errors, evidence
from gateway.clock import utc_now
from gateway.commands import Command, Done, receipt_json, remember, remembered
from gateway.database import Database

#: Does the change on the connection and returns what the log must say: ``event``, ``subject`` (our id), the rest.
Work = Callable[[AsyncConnection, Actor, datetime], Awaitable[dict[str, Any]]]


class Governance:
    """The one way to change what decisions rest on, for the faces."""

    def __init__(
        self, *, database: Database, audit: AuditLog, policies: PolicyStore, now: Callable[[], datetime] = utc_now
    ) -> None:
        self.database, self.now = database, now
        self._audit, self._policies = audit, policies
        #: Who else learns of a change, in its transaction: each gets the connection and what the log says of it.
        self.followers: list[Callable[[AsyncConnection, dict[str, Any]], Awaitable[None]]] = []

    async def authorise(self, caller: Caller, *actions: str) -> Actor:
        """Return who acts, or raise Denied with an entry: the roles in force allow none of these actions."""
        at, policy = self.now(), self._policies.current
        if any(may(caller, action, policy, at) for action in actions):
            user = str(caller.person) if caller.person is not None else caller.holder_of_roles
            return Actor(institution=caller.institution, user=user)
        raise await self._denied(caller, actions)

    async def note_reading(self, caller: Caller, event: str, what: dict[str, Any]) -> dict[str, str]:
        """Put on record that somebody looks at something, before it is shown; returns the receipt as JSON has it."""
        entry = evidence.entry(
            event, "done", at=self.now(), policy_version="none", actor=evidence.actor(caller), what=what
        )
        return receipt_json(await self._audit.append(entry))

    def roles_of(self, caller: Caller) -> frozenset[str]:
        """Return the roles in which a caller acts now."""
        return roles_in_force(caller, self._policies.current, self.now())

    async def _denied(self, caller: Caller, actions: tuple[str, ...]) -> errors.Denied:
        at, policy = self.now(), self._policies.current
        entry = evidence.entry(
            "governance.denied",
            "deny",
            at=at,
            policy_version=policy.version,
            actor=evidence.actor(caller),
            what={"actions": sorted(actions)},
            decision={"reasons": ["role"]},
        )
        return errors.Denied(("role",), await self._audit.append(entry))

    async def change(
        self,
        caller: Caller,
        action: str | tuple[str, ...],
        work: Work,
        *,
        command: Command | None = None,
        correlation: str | None = None,
    ) -> Done:
        """Do a change for a caller, once per command; the answer is what the log says of it, and the receipt.

        ``action`` is what a role must allow, or several of which one is enough and ``work`` looks closer. Raises
        Denied, Conflict for a key used with another body, and whatever else ``work`` raises: then nothing changed.
        """
        actions = (action,) if isinstance(action, str) else action
        acting, at = await self.authorise(caller, *actions), self.now()
        try:
            return await self._changed(caller, acting, work, at, command, correlation)
        except NotEntitled:
            raise await self._denied(caller, actions) from None

    async def _changed(
        self,
        caller: Caller,
        acting: Actor,
        work: Work,
        at: datetime,
        command: Command | None,
        correlation: str | None,
    ) -> Done:
        async with self.database.transaction() as connection:
            if command is not None and (earlier := await remembered(connection, command)) is not None:
                return earlier
            said = await work(connection, acting, at)
            receipt = await self._log(connection, said, at, evidence.actor(caller), correlation)
            done = Done(201, {**answer_of(said), "receipt": receipt_json(receipt)}, replayed=False)
            if command is not None:
                await remember(connection, command, done)
            return done

    async def change_here(self, work: Work) -> dict[str, Any]:
        """Do a change for whoever runs this machine, who could do it in the database as well; logged as such."""
        acting, at = Actor(institution=None, user=f"uid:{os.getuid()}"), self.now()
        async with self.database.transaction() as connection:
            said = await work(connection, acting, at)
            receipt = await self._log(connection, said, at, {"channel": "command-line", "user": acting.user}, None)
            return {**answer_of(said), "receipt": receipt_json(receipt)}

    async def _log(
        self,
        connection: AsyncConnection,
        said: dict[str, Any],
        at: datetime,
        actor: dict[str, Any],
        correlation: str | None,
    ) -> Receipt:
        for follow in self.followers:
            await follow(connection, said)
        subject = said.get("subject")
        entry = evidence.entry(
            said["event"],
            "done",
            at=at,
            policy_version="none",
            subject=None if subject is None else UUID(subject),
            correlation=correlation,
            actor=actor if "mandate" not in said else {**actor, "mandate": said["mandate"]},
            what=answer_of(said),
        )
        return await self._audit.stage(connection, entry)


def answer_of(said: dict[str, Any]) -> dict[str, Any]:
    """Return what a change says of itself without its event, the person it is about, and who acted for them."""
    return {name: value for name, value in said.items() if name not in ("event", "subject", "mandate")}
