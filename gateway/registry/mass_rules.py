"""The rule of ``protection.py`` as SQL for DuckDB, generated from the same catalogue and code lists.

Tables it reads: ``person``, ``household``, ``community`` and ``known``, the facts (see ``mass_reading.py``). Of a
chunk of units it makes three: ``base``, where each belongs; ``stated``, each service that applies with what it rests
on; ``summed``, in which categories all services reach it and when time alone may change that.
"""

# What goes into the statements comes from catalogue and code lists, quoted.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from gateway.catalogue.models import Service
from gateway.registry.populations import ADULT_AGE, OLDER_AGE
from gateway.registry.protection import AT_BIRTH, BEFORE_BIRTH, FIRST_YEARS, PREGNANT, turning_ages
from gateway.registry.status import INDIGENOUS, POVERTY
from schemas.codes import code_list

_DISABILITY = ("disability", "severe-disability")


def marks(services: Mapping[str, Service]) -> tuple[str, ...]:
    """Return the names of the attributes that the rule looks at, in the order of the columns ``mark_0``…"""
    needed = {PREGNANT, INDIGENOUS, POVERTY, *_DISABILITY}
    return tuple(sorted(needed | {each.requires for each in services.values() if each.requires is not None}))


def types(services: Mapping[str, Service]) -> list[str]:
    """Return the SQL that makes the types of what the rule says: codes, of which each takes one byte."""
    codes = {
        "service": [*services, ""],
        "category": list(code_list("life-cycle")),
        "state": ["unknown", "unprotected", "expired", "protected"],
        "reason": ["no-fact", "only-fact", "newest", "instrument", "recorded-last"],
    }
    return [f"CREATE TYPE {name}_code AS ENUM ({', '.join(map(quoted, listed))})" for name, listed in codes.items()]


class Rules:
    """The statements for one catalogue and one day."""

    def __init__(self, services: Mapping[str, Service], day: date) -> None:
        self._services = list(services.values())
        self._date = day
        self._day = f"DATE '{day.isoformat()}'"
        self._mark = {name: f"mark_{place}" for place, name in enumerate(marks(services))}

    def statements(self, kind: str, first: int, last: int) -> list[str]:
        """Return the statements that compute the units of a kind whose numbers are from ``first`` to ``last``."""
        person = kind == "person"
        base = self._persons() if person else self._shared(kind)
        return [
            f"CREATE OR REPLACE TEMP TABLE base AS {base} WHERE no BETWEEN {first} AND {last}",
            self._stated(self._applies_to_persons() if person else self._applies_to(kind), first, last),
            _SUMMED,
        ]

    def _persons(self) -> str:
        categories = f"CASE WHEN {self._mark[PREGNANT]} THEN '{BEFORE_BIRTH}' END"
        categories += f", CASE WHEN {self._aged(0, FIRST_YEARS - 1)} THEN '{AT_BIRTH}' END, {self._own()}"
        counts = f"merged IS NULL AND NOT coalesce(died <= {self._day}, false)"
        return f"""
        SELECT no, unit, 'person' AS kind, department, district, community, born, {", ".join(self._mark.values())},
            {counts} AS counts, {self._own()} AS own,
            CASE WHEN {counts} THEN {self._populations()} ELSE '' END AS populations,
            CASE WHEN {counts} THEN concat_ws(',', {categories}) ELSE '' END AS categories,
            CASE WHEN {counts} THEN least(CASE WHEN died > {self._day} THEN died END, {self._turn()}) END AS turns
        FROM person
        """

    def _shared(self, kind: str) -> str:
        populations = ", ".join(f"CASE WHEN {self._mark[name]} THEN '{name}' END" for name in (INDIGENOUS, POVERTY))
        return f"""
        SELECT no, unit, '{kind}' AS kind, department, district, community, {", ".join(self._mark.values())},
            counts, {_category(kind)} AS own,
            CASE WHEN counts THEN concat_ws(',', {populations}) ELSE '' END AS populations,
            CASE WHEN counts THEN '{kind}' ELSE '' END AS categories, CAST(NULL AS DATE) AS turns
        FROM {kind}
        """

    def _stated(self, applies: list[str], first: int, last: int) -> str:
        """Return the statement that says of each service that applies to a unit which fact counts, and what it says."""
        many = max(len(self._services), 1)
        near = f"SELECT * FROM known WHERE key BETWEEN {first * many} AND {last * many + many - 1}"
        nothing = f"SELECT no, 0 AS key, {_service('')} AS service, own AS category, 0 AS coverage, false AS core"
        return f"""
        CREATE OR REPLACE TEMP TABLE stated AS
        WITH applies AS (
            {" UNION ALL ".join(applies or [f"{nothing} FROM base WHERE false"])}
        ), counted AS (
            SELECT key, fact, protected, observed,
                CASE WHEN lead(observed) OVER w IS NULL THEN {_reason("only-fact")}
                    WHEN observed <> lead(observed) OVER w THEN {_reason("newest")}
                    WHEN rank <> lead(rank) OVER w THEN {_reason("instrument")}
                    ELSE {_reason("recorded-last")} END AS rule
            FROM ({near} AND observed <= {self._day})
            WINDOW w AS (PARTITION BY key ORDER BY observed DESC, rank DESC, recorded DESC, fact DESC)
            QUALIFY row_number() OVER w = 1
        ), expected AS (
            SELECT key, min(observed) AS later FROM ({near} AND observed > {self._day}) GROUP BY key
        ), joined AS (
            SELECT a.*, c.fact, c.observed, coalesce(c.rule, {_reason("no-fact")}) AS rule, e.later,
                CASE WHEN c.fact IS NULL THEN {_state("unknown")} WHEN NOT c.protected THEN {_state("unprotected")}
                    WHEN c.observed + a.coverage < {self._day} THEN {_state("expired")}
                    ELSE {_state("protected")} END AS status
            FROM applies AS a LEFT JOIN counted AS c ON c.key = a.key LEFT JOIN expected AS e ON e.key = a.key
        )
        SELECT no, service, category, core, fact, rule, status,
            least(later, CASE WHEN status = {_state("protected")} THEN observed + coverage + 1 END) AS due
        FROM joined
        """

    def _applies_to_persons(self) -> list[str]:
        found = []
        for place, each in enumerate(self._services):
            ages = sorted(each.categories - {BEFORE_BIRTH, AT_BIRTH})
            reached = {
                BEFORE_BIRTH: (self._mark[PREGNANT], _category(BEFORE_BIRTH)),
                AT_BIRTH: (self._aged(0, FIRST_YEARS - 1), _category(AT_BIRTH)),
            }
            whens = [reached[code] for code in (BEFORE_BIRTH, AT_BIRTH) if code in each.categories]
            whens += [(f"own IN ({', '.join(map(_category, ages))})", "own")] if ages else []
            if not whens:
                continue
            category = f"CASE {' '.join(f'WHEN {when} THEN {code}' for when, code in whens)} END"
            of_age = "true"
            if each.from_age is not None or each.to_age is not None:
                of_age = f"(born IS NULL OR born > {self._day} OR {self._aged(each.from_age or 0, each.to_age)})"
            anyhow = " OR ".join(when for when, _code in whens)
            found.append(self._applying(place, category, f"({anyhow}) AND {of_age}"))
        return found

    def _applies_to(self, kind: str) -> list[str]:
        return [
            self._applying(place, "own", "true") for place, each in enumerate(self._services) if kind in each.categories
        ]

    def _applying(self, place: int, category: str, condition: str) -> str:
        each = self._services[place]
        outside = ", ".join(map(_category, sorted(each.outside_core)))
        return (
            f"SELECT no, CAST(no AS BIGINT) * {len(self._services)} + {place} AS key, {_service(each.code)} AS service,"
            f" {category} AS category, CAST({'NULL' if each.coverage_days is None else each.coverage_days} AS INTEGER)"
            f" AS coverage, {f'{category} NOT IN ({outside})' if outside else 'true'} AS core"
            f" FROM base WHERE counts AND {condition}"
            f"{'' if each.requires is None else f' AND {self._mark[each.requires]}'}"
        )

    def _aged(self, youngest: int, oldest: int | None) -> str:
        """Return the condition of an age in completed years, both ends included; nobody of unknown age fulfils it."""
        condition = f"born <= {self._born(youngest)}"
        return condition if oldest is None else f"({condition} AND born > {self._born(oldest + 1)})"

    def _born(self, age: int) -> str:
        """Return the last birthday of those who have completed an age."""
        try:
            last = self._date.replace(year=self._date.year - age)
        except ValueError:
            last = date(self._date.year - age, 2, 28)
        return f"DATE '{last.isoformat()}'"

    def _own(self) -> str:
        whens = " ".join(
            f"WHEN {self._aged(bounds['from_age'], bounds['to_age'])} THEN {_category(code)}"
            for code, bounds in code_list("life-cycle").items()
            if "from_age" in bounds
        )
        return f"CASE {whens} END"

    def _turn(self) -> str:
        """Return the expression of the day on which the next age that matters is completed."""
        turns = " ".join(f"WHEN born > {self._born(age)} THEN {_birthday(age)}" for age in turning_ages(self._services))
        return f"CASE WHEN born > {self._day} THEN born {turns} END"

    def _populations(self) -> str:
        disability = " OR ".join(self._mark[name] for name in _DISABILITY)
        belongs = {
            "women": "woman",
            "children": self._aged(0, ADULT_AGE - 1),
            "older": self._aged(OLDER_AGE, None),
            "disability": disability,
            "indigenous": self._mark[INDIGENOUS],
            "poverty": "poor",
        }
        whens = [f"CASE WHEN {when} THEN '{code}' END" for code, when in belongs.items()]
        return f"concat_ws(',', {', '.join(whens)})"


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _service(code: str) -> str:
    return f"CAST({quoted(code)} AS service_code)"


def _category(code: str) -> str:
    return f"CAST({quoted(code)} AS category_code)"


def _state(code: str) -> str:
    return f"CAST({quoted(code)} AS state_code)"


def _reason(code: str) -> str:
    return f"CAST({quoted(code)} AS reason_code)"


def _birthday(age: int) -> str:
    """Return the expression of the day on which an age is completed; born 29 February, 1 March of common years."""
    day = f"(born + INTERVAL {age} YEAR)"
    return f"CAST({day} + CASE WHEN day({day}) < day(born) THEN INTERVAL 1 DAY ELSE INTERVAL 0 DAY END AS DATE)"


# A category is one bit: 1 before birth, 2 at birth, 4 the unit's own; ``applied``: those in which a core service
# applies, ``missing``: those of them in which one does not reach the unit.
_SUMMED = f"""
CREATE OR REPLACE TEMP TABLE summed AS
SELECT no, bit_or(bit) FILTER (core) AS applied,
    coalesce(bit_or(bit) FILTER (core AND status <> {_state("protected")}), 0) AS missing, min(due) AS due
FROM (
    SELECT *, CASE category WHEN {_category(BEFORE_BIRTH)} THEN 1 WHEN {_category(AT_BIRTH)} THEN 2 ELSE 4 END AS bit
    FROM stated
) GROUP BY no
"""
