"""What the kit tells: lines for a person, JSON for a program, JUnit XML for a build server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lxml import etree

from adapters.conformance.runner import Report, Result
from adapters.conformance.trials import GROUPS
from schemas.text import _

# Of many cases that fail for one reason so many are named.
_SHOWN = 4


def lines(reports: Sequence[Report]) -> Iterator[str]:
    """Give the report for a person: for each adapter a line, the groups that failed, and what came instead."""
    for report in reports:
        played = [result for result in report.results if not result.skipped]
        mark = "✗" if report.failures else "✓"
        yield f"{mark} {report.name}  {report.kind}  {report.institution}".rstrip()
        for group in GROUPS:
            of_group = [result for result in played if result.group == group]
            if of_group:
                good = sum(not result.wrong for result in of_group)
                yield f"    {_group(group):<14}{good:>4} / {len(of_group)}"
        for wrong, places in _by_complaint(report.failures).items():
            more = _(" y {n} más").format(n=len(places) - _SHOWN) if len(places) > _SHOWN else ""
            yield f"    ✗ {'; '.join(places[:_SHOWN])}{more}: {wrong}"
    failed = sum(bool(report.failures) for report in reports)
    total = sum(len(report.results) for report in reports)
    seconds = sum(report.seconds for report in reports)
    if failed:
        yield _("{failed} de {n} adaptadores no cumplen ({cases} casos, {s:.1f} s).").format(
            failed=failed, n=len(reports), cases=total, s=seconds
        )
    else:
        yield _("Los {n} adaptadores cumplen ({cases} casos, {s:.1f} s).").format(
            n=len(reports), cases=total, s=seconds
        )


def as_json(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Return the report for a program."""
    return [
        {
            "name": report.name,
            "kind": report.kind,
            "institution": report.institution,
            "conforms": not report.failures,
            "seconds": round(report.seconds, 3),
            "cases": [
                {
                    "verb": result.verb,
                    "case": result.case,
                    "detail": result.detail,
                    "group": result.group,
                    "outcome": "failed" if result.wrong else "skipped" if result.skipped else "passed",
                    "why": result.wrong or result.skipped,
                }
                for result in report.results
            ],
        }
        for report in reports
    ]


def write_junit(reports: Sequence[Report], file: Path) -> None:
    """Write the report as JUnit XML, a suite for each adapter; raise OSError where the file cannot be written."""
    root = etree.Element("testsuites", name="siis adapter conformance")
    for report in reports:
        counts = {
            "tests": len(report.results),
            "failures": len(report.failures),
            "errors": 0,
            "skipped": sum(bool(result.skipped) for result in report.results),
        }
        suite = etree.SubElement(root, "testsuite", name=report.name, time=f"{report.seconds:.3f}")
        for name, count in counts.items():
            suite.set(name, str(count))
        for result in report.results:
            case = etree.SubElement(
                suite, "testcase", classname=report.name, name=_place(result), time=f"{result.seconds:.3f}"
            )
            if result.wrong:
                etree.SubElement(case, "failure", message=_plain(result.wrong), type="nonconformity")
            elif result.skipped:
                etree.SubElement(case, "skipped", message=_plain(result.skipped))
    file.write_bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True))


def _by_complaint(failures: Sequence[Result]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in failures:
        found.setdefault(result.wrong, []).append(_place(result))
    return found


def _place(result: Result) -> str:
    return " · ".join(part for part in (result.verb, titles().get(result.case, result.case), result.detail) if part)


def _plain(text: str) -> str:
    """Leave out what XML cannot hold."""
    return "".join(character for character in text if character.isprintable())


def _group(group: str) -> str:
    names = {
        "contract": _("contrato"),
        "transport": _("transporte"),
        "content": _("contenido"),
        "form": _("forma"),
        "credentials": _("credenciales"),
    }
    return names[group]


def titles() -> dict[str, str]:
    """Return what each case is called for a person; an example of a contract broken has its own name."""
    return {
        "examples": _("ejemplos"),
        "found": _("encontrado"),
        "not_found": _("no encontrado"),
        "rejected": _("rechazado"),
        "taken": _("recibida"),
        "already_taken": _("ya recibida"),
        "page": _("con contrarreferencias"),
        "empty": _("vacío"),
        "nothing": _("nada que tomar"),
        "nobody": _("nadie con ese documento"),
        "unfinished": _("archivo sin terminar"),
        "over-sftp": _("por SFTP"),
        "duplicate": _("dos veces lo mismo"),
        "somebody-else": _("respuesta sobre otra persona"),
        "not-there": _("nadie escucha"),
        "no-folder": _("no hay carpeta"),
        "absent": _("no hay base de datos"),
        "slow": _("no contesta"),
        "hang": _("no contesta"),
        "silence": _("no contesta"),
        "drip": _("contesta gota a gota"),
        "lock": _("bloqueada"),
        "no-answer": _("cierra sin contestar"),
        "reset": _("conexión cortada"),
        "cut": _("cortado a la mitad"),
        "cut-at-the-end": _("conexión cortada al terminar"),
        "full": _("sin espacio"),
        "reset-once": _("conexión cortada una vez"),
        "half": _("media respuesta"),
        "no-http": _("no es HTTP"),
        "compressed": _("comprimida"),
        "redirect": _("redirección"),
        "wrong-path": _("404 con una página"),
        "too-many-requests": _("demasiadas peticiones"),
        "unavailable": _("503 con una página"),
        "unavailable-once": _("503 una vez"),
        "answer-under-500": _("respuesta buena con 500"),
        "html": _("página con 200"),
        "no-content": _("204"),
        "noise": _("ruido"),
        "huge": _("demasiado grande"),
        "huge-undeclared": _("demasiado grande sin declararlo"),
        "doctype": _("DOCTYPE"),
        "another-envelope": _("otro sobre"),
        "another-message": _("otro mensaje"),
        "another-type": _("otro tipo de documento"),
        "another-namespace": _("otro espacio de nombres"),
        "wrong-charset": _("otra codificación que la declarada"),
        "declared-charset": _("otra codificación, declarada"),
        "charsets-disagree": _("dos codificaciones declaradas"),
        "repeated-member": _("miembro repetido"),
        "fault-server": _("falla del servidor"),
        "fault-inside-200": _("falla dentro de un 200"),
        "fault-client": _("falla del cliente"),
        "empty-body": _("Body vacío"),
        "control-character": _("carácter de control"),
        "damaged-row": _("una fila dañada"),
        "short-row": _("una fila corta"),
        "extra-field": _("campo desconocido de más"),
        "reordered": _("otro orden"),
        "missing-field": _("falta un campo obligatorio"),
        "empty-cell": _("campo obligatorio vacío"),
        "null": _("campo nulo"),
        "other-type": _("campo de otro tipo"),
        "unknown-code": _("código desconocido"),
        "credentials-refused": _("credenciales rechazadas"),
        "refuse": _("credenciales rechazadas"),
        "other-key": _("otra clave del servidor"),
        "token-expired": _("token vencido"),
        "session-refused": _("sesión rechazada"),
        "session-html": _("página en vez de sesión"),
        "unsigned": _("sin firma"),
        "signed-by-another": _("firmada por otro"),
    }
