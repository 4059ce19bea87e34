"""MDS, its rolls as files: the universal pension's with a title above the header, Tekoporã's named by the second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adapters.simulator.publisher import Publisher, table
from adapters.simulator.settings import Settings

PENSION = ("cedula", "nombres", "apellidos", "departamento", "distrito", "fecha_ingreso", "estado", "ultimo_pago")
TEKOPORA = (*PENSION[:5], "hogar", "calidad", *PENSION[5:])


class MdsPadron(Publisher):
    """The rolls of the ministry of social development."""

    name = "mds-padron"
    folders = ("pension", "tekopora")

    def register(self, *, spoilt: bool) -> Mapping[str, bytes]:
        """Return both rolls; spoilt, a clerk wrote every third cédula with dots."""
        pension, tekopora = (list(self._rows(which, spoilt)) for which in ("pension", "tekopora"))
        title = "PADRÓN DE LA PENSIÓN UNIVERSAL - OCTUBRE DE 2026\r\n"
        return {
            "pension/padron_pension_2026_10.csv": (title + table(PENSION, pension, ";")).encode("utf-8-sig"),
            "tekopora/tekopora_02_11_2026_03_00_00.csv": table(TEKOPORA, tekopora, ",").encode(),
        }

    def _rows(self, which: str, spoilt: bool) -> Iterator[tuple[str, ...]]:
        for dossier in self.archive.values():
            person = dossier.person
            benefit = dossier.pension if which == "pension" else dossier.tekopora
            if benefit is None or person.cedula is None:
                continue
            dotted = spoilt and person.number % 3 == 0
            values = {
                "cedula": f"{person.cedula[:-3]}.{person.cedula[-3:]}" if dotted else person.cedula,
                "nombres": person.given_names,
                "apellidos": person.surnames,
                "departamento": person.department,
                "distrito": person.district,
                "hogar": benefit.household,
                "calidad": benefit.role,
                "fecha_ingreso": benefit.since.strftime("%d/%m/%Y"),
                "estado": benefit.status,
                "ultimo_pago": benefit.paid_until.strftime("%m/%Y"),
            }
            yield tuple(values[name] for name in (PENSION if which == "pension" else TEKOPORA))


def build(settings: Settings) -> MdsPadron:
    """Return the institution, ready to serve."""
    return MdsPadron(settings)
