"""Runs the trials of each manifest and judges how they ended: a typed outcome, the right one, and nothing let slip."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from itertools import count
from pathlib import Path

import structlog

from adapters.conformance.cases import Cases, case_file, missing, read_cases
from adapters.conformance.databases import database_trials
from adapters.conformance.faults import HttpFaults
from adapters.conformance.folder_faults import folder_trials
from adapters.conformance.judge import Judge
from adapters.conformance.keys import Keys
from adapters.conformance.trials import Place, Trial
from adapters.conformance.verbs import Verb, verbs_of
from adapters.conformance.wire import Carrier, Carriers
from adapters.errors import UnknownAdapter
from adapters.files.adapter import FileAdapter
from adapters.kinds import GROUP
from adapters.manifest import Breaker, Manifest
from adapters.registry import SHIPPED, read_manifests, rehearse
from schemas.text import _

_AT_ONCE = 8
_BUDGET_S, _SHORT_BUDGET_S = 10.0, 0.3
# Beyond its time budget an adapter is given this long; who still has no outcome then never will.
_GRACE_S = 5.0
_SMALLEST_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Result:
    """How one trial ended. ``wrong`` says what came instead, empty where it is as it should; ``skipped``, why not."""

    verb: str
    case: str
    detail: str
    group: str
    seconds: float
    wrong: str = ""
    skipped: str = ""


@dataclass(slots=True)
class Report:
    """The trials of one adapter."""

    name: str
    kind: str
    institution: str
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failures(self) -> list[Result]:
        """Those that did not end as they should."""
        return [result for result in self.results if result.wrong]


def chosen(folders: Sequence[Path], names: Sequence[str]) -> list[Manifest]:
    """Return the manifests that come with the gateway and those in the folders, or of them those named.

    Raises :class:`~adapters.errors.ManifestError` for the first that is wrong, UnknownAdapter for a name nobody has.
    """
    known = {manifest.name: manifest for manifest in read_manifests([SHIPPED, *folders])}
    for name in names:
        if name not in known:
            raise UnknownAdapter(name)
    return [known[name] for name in (names or sorted(known))]


async def run(manifests: Sequence[Manifest], *, everything: bool) -> list[Report]:
    """Hold manifests to the cases, one after another.

    ``everything``: nothing was left out, so that an installed kind which none of them uses is a failure too. Raises
    :class:`~adapters.errors.ManifestError` for a case file that cannot be read.
    """
    cases = [read_cases(manifest) for manifest in manifests]
    keys = Keys()
    # Every case that goes wrong on purpose would be a line in the log.
    configured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        reports = [await _run_one(manifest, found, keys) for manifest, found in zip(manifests, cases, strict=True)]
    finally:
        structlog.configure(**configured)
    if everything:
        reports += _unused({manifest.kind for manifest in manifests})
    return reports


def _unused(kinds: set[str]) -> Iterator[Report]:
    """Report the installed kinds that no manifest uses: nobody knows how they behave."""
    for point in sorted(entry_points(group=GROUP), key=lambda item: item.name):
        if point.name not in kinds:
            lacking = Result(
                "", "examples", "", "contract", 0.0, wrong=_("instalado, y sin manifiesto con que probarlo")
            )
            yield Report(point.name, point.name, "", [lacking])


async def _run_one(manifest: Manifest, cases: Cases | None, keys: Keys) -> Report:
    report = Report(manifest.name, manifest.kind, manifest.institution)
    started = time.monotonic()
    lacking = [_("todo el archivo")] if cases is None else list(missing(manifest, cases))
    for name in lacking:
        report.results.append(
            Result(
                "", "examples", name, "contract", 0.0, wrong=_("falta en {file}").format(file=case_file(manifest).name)
            )
        )
    if cases is not None:
        folder = Path(tempfile.mkdtemp(prefix="siis-conformance-"))
        try:
            report.results += await _Trials(manifest, cases, keys, folder).run()
        finally:
            shutil.rmtree(folder)
    report.seconds = time.monotonic() - started
    return report


class _Trials:
    """The trials of one manifest, several at a time: each has a producer and an adapter of its own."""

    def __init__(self, manifest: Manifest, cases: Cases, keys: Keys, folder: Path) -> None:
        self._manifest, self._cases, self._keys, self._folder = _for_the_kit(manifest, cases), cases, keys, folder
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._numbers = count(1)
        self._secrets = folder / "secrets"
        self._secrets.mkdir()
        keys.write(self._manifest, self._secrets)
        self._tls = keys.tls(self._manifest, folder)
        self._untold = tuple(file.read_text(encoding="utf-8") for file in self._secrets.iterdir())

    async def run(self) -> list[Result]:
        """Run them all."""
        verbs = [verb for verb in verbs_of(self._manifest, self._cases) if verb.playable]
        pairs = [(verb, trial) for verb in verbs for trial in self._trials(verb)]
        return list(await asyncio.gather(*(self._one(verb, trial) for verb, trial in pairs)))

    def _trials(self, verb: Verb) -> Iterator[Trial]:
        match self._cases.transport:
            case "folder":
                yield from folder_trials(self._manifest, verb)
            case "sqlite":
                yield from database_trials(self._manifest, verb)
            case _:
                yield from HttpFaults(self._manifest, verb, self._carriers()).trials()

    def _carriers(self) -> Carriers:
        if "partner" not in self._manifest.security:
            return Carriers(Carrier(self._manifest))
        return Carriers(
            Carrier(self._manifest, self._keys.partner.signer()),
            {
                "unsigned": Carrier(self._manifest),
                "signed-by-another": Carrier(self._manifest, self._keys.stranger.signer()),
            },
        )

    async def _one(self, verb: Verb, trial: Trial) -> Result:
        if trial.skipped:
            return Result(verb.label, trial.case, trial.detail, trial.group, 0.0, skipped=trial.skipped)
        async with self._places:
            started = time.monotonic()
            wrong = await self._ended(verb, trial)
            return Result(verb.label, trial.case, trial.detail, trial.group, time.monotonic() - started, wrong)

    async def _ended(self, verb: Verb, trial: Trial) -> str:
        """Say what was wrong with a trial; whatever it raised is told, and one that does not end is ended."""
        budget_s = _SHORT_BUDGET_S if trial.hangs else _BUDGET_S
        limits = replace(self._manifest.limits, budget_s=budget_s, bulk_s=budget_s)
        task = asyncio.ensure_future(self._play(verb, trial, replace(self._manifest, limits=limits)))
        done, _waiting = await asyncio.wait([task], timeout=budget_s + _GRACE_S)
        if not done:
            task.cancel()
            await asyncio.wait([task], timeout=_GRACE_S)
            return _("sin resultado dentro de su tiempo")
        if task.cancelled():
            return _("se canceló")
        error = task.exception()
        return task.result() if error is None else _told(error)

    async def _play(self, verb: Verb, trial: Trial, manifest: Manifest) -> str:
        if trial.stage is None:
            return _("el ejemplo no tiene el campo")
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        async with trial.stage.opened(Place(folder, manifest, self._secrets, self._tls)) as connection:
            adapter = rehearse(manifest, connection, self._secrets)
            if isinstance(adapter, FileAdapter):
                # A file of the kit's lies there complete; nobody need wait to see whether it grows.
                adapter.still_s = 0.0
            judge = Judge(verb, adapter, self._untold)
            try:
                outcome = await verb.ask(adapter, other=trial.other)
                wrong = judge.wrong(trial, trial.expected, outcome)
                if not wrong and trial.second is not None:
                    wrong = judge.wrong(trial, trial.second, await verb.ask(adapter, before=outcome))
            finally:
                await adapter.close()
        return wrong or trial.stage.complaint() or ""


def _for_the_kit(manifest: Manifest, cases: Cases) -> Manifest:
    """Take out of a manifest what would only make the kit wait, and bound what it reads near its examples' size."""
    most = max(_SMALLEST_BODY, 4 * len(repr(cases.content)))
    changed = replace(
        manifest,
        limits=replace(manifest.limits, per_second=None, max_body=min(manifest.limits.max_body, most)),
        breaker=Breaker(failures=100),
        retry=replace(manifest.retry, first_wait_s=0.001),
    )
    if "certificate" not in manifest.tls or "ca" in manifest.tls:
        return changed
    # The authority of the kit's servers is none that this machine knows.
    content = manifest.source.content
    tls = {**manifest.tls, "ca": "conformance_ca"}
    source = replace(manifest.source, content={**content, "tls": {**content["tls"], "ca": tls["ca"]}})
    return replace(changed, tls=tls, source=source)


def _told(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return _("excepción {name} en {place}: {what}").format(
        name=type(error).__name__, place=place, what=str(error)[:200]
    )
