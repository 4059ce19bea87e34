"""Decides whether a service description can be used, and names everything of it that is lost or missing.

The reading happens in a process of its own, with bounded time and memory: a description comes from outside.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree

from adapters.soap.catalogue import WSDL, XSD, Documents, Problem, Refused, Source, line_of
from adapters.soap.declared import Declared
from schemas.text import _, language, set_language

# Every kind of problem there is; scripts may rely on these words.
KINDS = (
    "bad-schema",
    "doctype",
    "failed",
    "limit",
    "lost-message",
    "lost-operation",
    "missing-import",
    "missing-name",
    "no-operations",
    "not-callable",
    "not-wsdl",
    "not-xml",
    "undeclared-prefix",
    "unreadable",
    "wrong-import",
)
_SPENT = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What an examination may cost: seconds by the clock, of a processor, and bytes of address space."""

    wall_s: int = 16
    cpu_s: int = 16
    size: int = 480 * 1024 * 1024


@dataclass(slots=True)
class Examined:
    """What an examination found: ``operations`` as zeep loaded them, ``problems`` of the kinds in ``KINDS``."""

    usable: bool = False
    operations: list[dict[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def examine(file: Path, catalogues: Sequence[Path] = (), limits: Limits = Limits()) -> Examined:
    """Examine a description in a process of its own: with the start of both, at most 20 s and 500 MB."""
    given = [language(), str(limits.cpu_s), str(limits.size), str(file), *map(str, catalogues)]
    command = [sys.executable, "-m", "adapters.soap.examine", *given]
    try:
        ended = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limits.wall_s, check=False
        )
    except subprocess.TimeoutExpired:
        return _failed(file, "limit", _("tardó demasiado: más de {n} segundos").format(n=limits.wall_s))
    if ended.returncode < 0 or ended.returncode == _SPENT:
        return _failed(file, "limit", _("leerlo agotó la memoria o el tiempo permitidos"))
    if ended.returncode:
        why = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return _failed(file, "failed", _("no se pudo examinar: {why}").format(why=why))
    found = json.loads(ended.stdout)
    return Examined(found["usable"], found["operations"], [Problem(**problem) for problem in found["problems"]])


def examine_here(file: Path, catalogues: Sequence[Path] = ()) -> Examined:
    """Examine a description in this process, without limits; never raises for what is in the files."""
    name = file.name or str(file)
    missing = [folder for folder in catalogues if not folder.is_dir()]
    if missing:
        what = _("la carpeta de --catalogue no existe")
        return Examined(problems=[Problem("unreadable", str(folder), what) for folder in missing])
    documents = Documents(file, catalogues)
    try:
        root = documents.open(str(documents.file))
        if root.root.tag != f"{WSDL}definitions":
            return Examined(problems=[Problem("not-wsdl", f"{name}:{line_of(root.root)}", _what_it_is(root))])
        sources, problems = documents.walk()
    except Refused as refused:
        where = name if refused.line is None else f"{name}:{refused.line}"
        return Examined(problems=[Problem(refused.kind, where, refused.what)])
    declared = Declared(sources)
    if problems:
        # What an absent schema would have declared is no second problem.
        also = [problem for problem in declared.problems if problem.kind not in ("missing-name", "lost-message")]
        return Examined(problems=_once([*problems, *also]))
    # Only now: zeep takes longer to import than most files to refuse.
    from adapters.soap.compare import compare

    found = compare(documents, declared, sources)
    return Examined(found.usable, found.operations, _once(found.problems))


def _what_it_is(source: Source) -> str:
    name = etree.QName(source.root)
    if source.root.tag == f"{XSD}schema":
        return _("es un esquema XSD, no un WSDL: va en una carpeta dada con --catalogue")
    if name.namespace == "http://www.w3.org/ns/wsdl":
        return _("es WSDL 2.0; se lee WSDL 1.1: pida esa versión")
    return _("no es un WSDL: su raíz es {name}").format(name=name.localname)


def _once(problems: Iterable[Problem]) -> list[Problem]:
    """Keep the first of the problems that say the same."""
    first: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        first.setdefault((problem.kind, problem.what), problem)
    return list(first.values())


def _failed(file: Path, kind: str, what: str) -> Examined:
    return Examined(problems=[Problem(kind, file.name or str(file), what)])


def _main() -> None:
    spoken, seconds, size, file, *catalogues = sys.argv[1:]
    set_language(spoken)
    resource.setrlimit(resource.RLIMIT_AS, (int(size), int(size)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    try:
        found = examine_here(Path(file), [Path(folder) for folder in catalogues])
    except (MemoryError, ImportError, SystemError):
        # All are what running out of memory looks like. Leave at once: there is none to end in good order.
        os._exit(_SPENT)
    if any(problem.kind in ("bad-schema", "not-xml") for problem in found.problems) and _peak() > int(size) * 3 / 4:
        # libxml2 calls it bad XML when it gets no memory.
        os._exit(_SPENT)
    json.dump(found.as_json(), sys.stdout)


def _peak() -> int:
    """Return the most address space this process has had, in bytes (proc(5); its rusage counts its parent's too)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmPeak:")[2].split()[0]) * 1024


if __name__ == "__main__":
    _main()
