"""Puts the rooms together for one process: the database, the keys, the log, the policy, the adapters, the services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from adapters.registry import Adapters
from audit.checkpoint import Signer
from audit.keys import load_or_create_signing_key
from audit.service import AuditLog
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway.auditing.exports import Exports
from gateway.auditing.service import Auditing
from gateway.boards.cases import Cases
from gateway.boards.service import Boards
from gateway.boards.store import acting_for
from gateway.catalogue.service import Catalogue
from gateway.clock import utc_now
from gateway.database import Database, application_url
from gateway.deadlines.keeper import Deadlines
from gateway.delivery.desk import DeliveryDesk
from gateway.delivery.plan import Plan
from gateway.delivery.service import Delivery
from gateway.dossier.anomalies import Anomalies
from gateway.erasure.keeper import KeyKeeper
from gateway.exchange import Exchange
from gateway.governance.consents import Consents
from gateway.governance.emergencies import EmergencyWatch
from gateway.governance.explanations import Explanations
from gateway.governance.merges import Merges
from gateway.governance.protection import Protection
from gateway.governance.service import Governance
from gateway.governance.usage import Usage
from gateway.guidance.service import Guidance
from gateway.guidance.threads import Threads
from gateway.identity.directory import ClientDirectory
from gateway.identity.foreign import ForeignTokens
from gateway.identity.keys import load_ring
from gateway.identity.limits import ClientLimits
from gateway.identity.models import Issuer
from gateway.identity.oauth import TokenServer
from gateway.identity.peer import Proxies
from gateway.identity.rotation import RingKeeper
from gateway.identity.tokens import TokenChecker
from gateway.intake.forms import Forms
from gateway.intake.forms_crossing import RegisterCrossing
from gateway.intake.forms_facts import FactReports
from gateway.intake.held import HeldRegisters
from gateway.intake.registers import RegisterIntake
from gateway.intake.replies import ReplyIntake
from gateway.links.service import Links
from gateway.producers.service import HealthKeeper, open_adapters
from gateway.referrals.service import ReferralService
from gateway.refusals import RefusalLog
from gateway.registry.achievements import Published
from gateway.registry.lookup import SubjectLookup
from gateway.registry.query import StatusService
from gateway.registry.rounds import StatusRounds
from gateway.reports.service import Reports
from gateway.rights.breaches import Breaches
from gateway.rights.service import Rights
from gateway.settings import Settings
from gateway.statistics.service import Statistics
from gateway.statistics.trajectory import Trajectories
from gateway.subscriptions.push import Push
from gateway.subscriptions.service import Subscriptions
from gateway.vault import MissingKey, Vault, load_epochs, load_kek, open_vault
from gateway.witnesses.policy import policy_text
from gateway.witnesses.quorum import Quorum
from gateway.witnesses.service import Witnessing, quorum_watch

LOG_KEY = "log-signing.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Everything a process of the gateway works with, open and ready."""

    settings: Settings
    database: Database
    vault: Vault
    audit: AuditLog
    signer: Signer
    policies: PolicyStore
    directory: ClientDirectory
    checker: TokenChecker
    tokens: TokenServer
    limits: ClientLimits
    refusals: RefusalLog
    adapters: Adapters
    subjects: SubjectLookup
    governance: Governance
    explanations: Explanations
    consents: Consents
    protection: Protection
    merges: Merges
    forms: Forms
    reported: FactReports
    rights: Rights
    breaches: Breaches
    usage: Usage
    guidance: Guidance
    threads: Threads
    auditing: Auditing
    exports: Exports
    anomalies: Anomalies
    proxies: Proxies
    exchange: Exchange
    referrals: ReferralService
    catalogue: Catalogue
    reports: Reports
    boards: Boards
    cases: Cases
    links: Links
    deadlines: Deadlines
    statuses: StatusService
    status_rounds: StatusRounds
    achievements: Published
    statistics: Statistics
    trajectories: Trajectories
    subscriptions: Subscriptions
    push: Push
    delivery: Delivery
    delivery_desk: DeliveryDesk
    replies: ReplyIntake
    registers: RegisterIntake
    crossing: RegisterCrossing
    quorum: Quorum
    witnessing: Witnessing


def load_signer(settings: Settings) -> Signer:
    """Read the log's signing key; made at the first start with the embedded database, else MissingKey."""
    path = settings.keys_dir / LOG_KEY
    if not settings.embedded and not path.exists():
        raise MissingKey(str(path))
    return Signer(settings.log_origin, load_or_create_signing_key(path), settings.data_dir / "signed")


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Open everything over a migrated database, keep policy and clients fresh, and close it all at the end.

    Raises :class:`~gateway.vault.MissingKey` for a key file that must exist and does not.
    """
    kek = load_kek(settings.keys_dir, create=settings.embedded)
    epochs = load_epochs(settings.keys_dir, create=settings.embedded)
    signer = load_signer(settings)
    ring = load_ring(settings.keys_dir, create=settings.embedded)
    async with AsyncExitStack() as stack:
        database = Database(application_url(settings))
        stack.push_async_callback(database.close)
        async with database.transaction() as connection:
            vault = await open_vault(connection, kek)
        audit = AuditLog(database.engine, epochs, settings.recorder)
        stack.push_async_callback(audit.close)
        await audit.start()
        policies = PolicyStore(database.engine)
        async with database.connection() as connection:
            await policies.load(connection)
        directory = ClientDirectory(database, now=utc_now)
        await directory.load()
        foreign = ForeignTokens(database, now=utc_now)
        await foreign.load()
        limits = ClientLimits(
            request_rate=settings.client_rate, registered=lambda client_id: directory.find(client_id) is not None
        )
        adapters = open_adapters(settings, held=lambda adapter: HeldRegisters(adapter, database, vault))
        stack.push_async_callback(adapters.close)
        subjects = SubjectLookup(database, vault)
        stack.push_async_callback(subjects.close)
        volume = Volume(database.engine, policies, utc_now)
        quorum = Quorum()
        watch = quorum_watch(settings, database, quorum, utc_now)
        if watch is not None:
            await watch.look()
        governance = Governance(database=database, audit=audit, policies=policies)
        auditing = Auditing(governance=governance, audit=audit, epochs=epochs, subjects=subjects)
        rights = Rights(governance=governance, audit=audit, vault=vault, epochs=epochs)
        issuer = Issuer(settings.issuer)
        refusals = RefusalLog(audit, policies, utc_now)
        catalogue, published = Catalogue(database), Published(database)
        referrals = ReferralService(
            database=database,
            vault=vault,
            catalogue=catalogue,
            subjects=subjects,
            audit=audit,
            policies=policies,
            volume=volume,
            quorum=quorum,
        )
        statuses = StatusService(
            database=database,
            vault=vault,
            audit=audit,
            policies=policies,
            volume=volume,
            quorum=quorum,
        )
        delivery = Delivery(
            database=database,
            vault=vault,
            audit=audit,
            policies=policies,
            adapters=adapters,
            plan=Plan(settings.retry_first_s, settings.retry_attempts),
            public_address=issuer.url,
            quorum=quorum,
        )
        stack.push_async_callback(delivery.close)
        runtime = Runtime(
            settings=settings,
            database=database,
            vault=vault,
            audit=audit,
            signer=signer,
            policies=policies,
            directory=directory,
            checker=TokenChecker(ring=ring, issuer=issuer, directory=directory, now=utc_now, foreign=foreign),
            tokens=TokenServer(
                issuer=issuer, ring=ring, directory=directory, database=database, now=utc_now, limits=limits
            ),
            limits=limits,
            refusals=refusals,
            adapters=adapters,
            exchange=Exchange(
                database=database,
                subjects=subjects,
                audit=audit,
                policies=policies,
                volume=volume,
                adapters=adapters,
                public_address=issuer.url,
                quorum=quorum,
            ),
            referrals=referrals,
            catalogue=catalogue,
            reports=Reports(governance=governance, vault=vault, audit=audit, policies=policies, quorum=quorum),
            boards=Boards(
                governance=governance, vault=vault, audit=audit, policies=policies, volume=volume, quorum=quorum
            ),
            cases=Cases(governance, vault),
            links=Links(
                governance=governance,
                vault=vault,
                audit=audit,
                policies=policies,
                referrals=referrals,
                public_address=issuer.url,
                quorum=quorum,
            ),
            deadlines=Deadlines(database=database, vault=vault, audit=audit, boards=acting_for),
            statuses=statuses,
            status_rounds=StatusRounds(database, settings.data_dir),
            achievements=published,
            statistics=Statistics(governance=governance, audit=audit, policies=policies, published=published),
            trajectories=Trajectories(
                database=database, vault=vault, audit=audit, policies=policies, volume=volume, quorum=quorum
            ),
            subscriptions=Subscriptions(
                governance=governance,
                vault=vault,
                boards=acting_for,
                local=issuer.url.startswith("http:"),
            ),
            push=Push(database=database, vault=vault, audit=audit, policies=policies, boards=acting_for),
            subjects=subjects,
            governance=governance,
            consents=Consents(governance, vault),
            protection=Protection(governance, vault),
            merges=Merges(governance, vault, audit=audit),
            forms=Forms(governance, vault),
            reported=FactReports(governance, vault),
            rights=rights,
            breaches=Breaches(governance=governance, audit=audit, vault=vault, epochs=epochs),
            guidance=Guidance(governance=governance, audit=audit, vault=vault, catalogue=catalogue, statuses=statuses),
            threads=Threads(governance=governance, audit=audit, vault=vault),
            usage=Usage(governance, vault, audit=audit, epochs=epochs),
            auditing=auditing,
            anomalies=Anomalies(governance=governance, audit=audit, vault=vault, epochs=epochs),
            exports=Exports(
                auditing,
                policy=partial(policy_text, signer, witnesses_file=settings.witnesses),
                witness_interval_s=settings.witness_interval_s,
                folder=settings.data_dir / "exports",
            ),
            proxies=Proxies(settings.trusted_proxies),
            explanations=Explanations(
                database=database,
                epochs=epochs,
                audit=audit,
                policies=policies,
                volume=volume,
                subjects=subjects,
                governance=governance,
            ),
            delivery=delivery,
            delivery_desk=DeliveryDesk(governance, vault),
            replies=ReplyIntake(database=database, audit=audit, policies=policies, referrals=referrals),
            registers=RegisterIntake(
                database=database,
                vault=vault,
                audit=audit,
                policies=policies,
                rejects_dir=settings.data_dir / "rejects",
            ),
            crossing=RegisterCrossing(database=database, vault=vault, audit=audit, policies=policies),
            quorum=quorum,
            witnessing=Witnessing.of(settings, database, audit, utc_now),
        )
        stop = asyncio.Event()
        keeper = HealthKeeper(database, adapters)
        ring_keeper = RingKeeper(ring, settings.keys_dir, now=utc_now)
        following = (
            policies.run,
            directory.run,
            foreign.run,
            ring_keeper.run,
            refusals.run,
            adapters.run,
            keeper.run,
            volume.run,
            EmergencyWatch(database).run,
            KeyKeeper(database, audit, epochs, now=utc_now).run,
            rights.run,
        )
        watching = () if watch is None else (watch.run,)
        followers = [asyncio.create_task(run(stop)) for run in (*following, *watching)]
        try:
            yield runtime
        finally:
            stop.set()
            await asyncio.gather(*followers, return_exceptions=True)
