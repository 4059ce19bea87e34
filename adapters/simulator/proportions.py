"""Decides the proportions of the simulated population: the one table to read and to change.

Where no source stands beside a figure it is assumed. Census: INE, census of 2022 (6,109,903 people: 25 % younger than
15, 66 % from 15 to 64, 9 % older, median age 29, as many men as women); what is finer than that is assumed.
"""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from random import Random
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Table(Generic[Value]):
    """Values with weights, and the way to draw one."""

    def __init__(self, *rows: tuple[Value, float]) -> None:
        self._values = [value for value, _ in rows]
        self._upto = list(accumulate(weight for _, weight in rows))

    def draw(self, rng: Random) -> Value:
        """Draw one value; takes one number from ``rng``."""
        return self._values[bisect(self._upto, rng.random() * self._upto[-1], 0, len(self._values) - 1)]


class ByAge(Generic[Value]):
    """Values by age in completed years: each row holds for those younger than its first figure."""

    def __init__(self, *rows: tuple[int, Value]) -> None:
        self._below = [age for age, _ in rows]
        self._values = [value for _, value in rows]

    def at(self, age: int) -> Value:
        """Return the value for somebody of this age."""
        return self._values[bisect(self._below, age)]


#: INE code → (thousands of inhabitants by the census's preliminary ranking, in which the names of the smaller ones are
#: inferred; share of indigenous people, assumed so that the sum meets the 140,039 of the indigenous census, 2.3 %).
DEPARTMENTS = {
    "00": (477, 0.001), "01": (205, 0.021), "02": (342, 0.013), "03": (271, 0.0), "04": (180, 0.012),
    "05": (430, 0.027), "06": (140, 0.03), "07": (437, 0.006), "08": (115, 0.0), "09": (199, 0.0005),
    "10": (785, 0.01), "11": (1867, 0.0015), "12": (86, 0.0), "13": (174, 0.085), "14": (189, 0.085),
    "15": (127, 0.26), "16": (69, 0.44), "17": (18, 0.29),
}  # fmt: skip
DISTRICT_RANK_OFFSET = 2  # weight of a department's n-th district = 1 / (n + offset)
URBAN = 0.69  # census
FOREIGN_HOUSEHOLDS = 0.025

# Households
HOUSEHOLDS = Table(
    ("alone", 0.13), ("couple", 0.13), ("couple with children", 0.43), ("one parent", 0.15), ("three generations", 0.16)
)  # fmt: skip
#: Kind of household → age of the one the others are reckoned from: (from, to), weight.
AGES = {
    "alone": Table(((20, 29), 0.20), ((30, 44), 0.15), ((45, 59), 0.15), ((60, 74), 0.32), ((75, 94), 0.18)),
    "couple": Table(((22, 29), 0.22), ((30, 44), 0.15), ((45, 59), 0.15), ((60, 74), 0.37), ((75, 89), 0.11)),
    "couple with children": Table(((22, 29), 0.22), ((30, 39), 0.33), ((40, 49), 0.26), ((50, 65), 0.19)),
    "one parent": Table(((20, 29), 0.18), ((30, 39), 0.33), ((40, 49), 0.25), ((50, 69), 0.24)),
    "three generations": Table(((22, 29), 0.28), ((30, 39), 0.36), ((40, 54), 0.36)),
}
MAN_IS_HEAD = 0.6  # of couples: who is listed first
MAN_OLDER_BY = (-4, 9)  # years
GRANDPARENT_OLDER_BY = (19, 36)  # years, than the head
WOMEN_ALONE = ByAge((60, 0.28), (200, 0.46))
MARRIED_COUPLES = 0.58  # the others live together, which the civil register calls single
SINGLE_STATUS = ByAge(
    (40, Table(("S", 0.88), ("D", 0.12))),
    (65, Table(("S", 0.45), ("D", 0.33), ("V", 0.22))),
    (200, Table(("S", 0.25), ("D", 0.13), ("V", 0.62))),
)
MOTHERS_AMONG_SINGLE_PARENTS = 0.76
WOMEN_AMONG_GRANDPARENTS = 0.6
CHILDREN = Table((1, 0.26), (2, 0.33), (3, 0.22), (4, 0.11), (5, 0.05), (6, 0.03))  # mean 2.5 (census)
FIRST_CHILD_AT = (17, 31)  # age of the parent
BETWEEN_CHILDREN = (2, 5)  # years
STILL_AT_HOME = ByAge((20, 0.99), (25, 0.88), (35, 0.52), (200, 0.2))
NEWBORN_MALE = 0.515
TWIN_BIRTHS = 0.012
TWINS_OF_ONE_SEX = 0.65
FATHER_UNRECORDED = 0.55  # single mothers' children who carry her two surnames
MINOR_WITHOUT_GUARDIAN = 0.03
POVERTY = {"indigenous": 0.65, "with children": 0.26, "other": 0.12}  # all: 22 % of people (INE, EPHC, August 2024)

# Identity
WITHOUT_CEDULA = {  # indigenous: 37,000 sought by a campaign of 2021 out of 140,039
    "indigenous": 0.26, "before first birthday": 0.55, "minor": 0.06, "adult": 0.008, "foreign": 0.4,
}  # fmt: skip
#: First cédula number of the people born in a year, between these years in proportion; seven digits from 1954 on.
CEDULA_BLOCKS = ((1900, 1_000), (1940, 400_000), (1960, 1_300_000), (1980, 3_300_000), (2000, 5_600_000),
                 (2010, 6_900_000), (2030, 9_850_000))  # fmt: skip
OLD_SERIES = 0.03  # born before 1960: number with a letter A to C
NATIONALITIES = Table(("BRA", 0.55), ("ARG", 0.28), ("DEU", 0.12), ("UKR", 0.05))
FOREIGN_CHILD_BORN_HERE = 0.7
GUARANI_GIVEN_NAME = {True: 0.55, False: 0.08}  # indigenous or not
TWO_GIVEN_NAMES = 0.6
WITH_PROFESSION = 0.78
WITH_PHONE = {True: 0.72, False: 0.9}  # of those aged 14 and over, in poverty or not

# Life
DEAD = ByAge((60, 0.003), (75, 0.02), (200, 0.09))  # died since the roll was made, and are still on it
DEAD_STILL_SERVED = 0.4  # more than 1,000 dead people were found on the pension roll in 2024
DISABILITY = ByAge(
    (18, Table(("none", 0.965), ("mild", 0.025), ("severe", 0.01))),
    (60, Table(("none", 0.935), ("mild", 0.05), ("severe", 0.015))),
    (200, Table(("none", 0.77), ("mild", 0.17), ("severe", 0.06))),
)
PREGNANT = 0.05  # of women aged 15 to 44
CHILD_LABOUR = {True: 0.16, False: 0.05}  # of those aged 5 to 17, in poverty or not
#: Groups of the Canal Verde → their share of all people, which follows from the figures above and is tested.
SPECIAL_ATTENTION = {
    "children": 0.29, "women": 0.50, "older-adults": 0.13, "disability": 0.08, "indigenous": 0.023, "poverty": 0.22,
}  # fmt: skip

#: Service → share of those it is for who have it; what is missing to 1 is the protection gap.
COVERAGE = {
    "prenatal-control": 0.60, "vaccination": 0.66, "growth-control": 0.55, "school-enrolment": 0.68, "abrazo": 0.42,
    "vocational-training": 0.42, "universal-pension": 0.62, "health-control": 0.50, "tekopora": 0.58,
}  # fmt: skip
COVERAGE_OF_OTHERS = 0.55

# What institutions know, besides the services above (adapters/simulator/dossier.py)
FORMAL_WORK = {True: 0.08, False: 0.34}  # aged 19 to 64, in poverty or not
WORK_AFTER_65 = 0.06
PUBLIC_EMPLOYMENT = 0.22  # of formal work; the others contribute to the social insurance
PAST_EMPLOYMENT = 0.25  # of those not working now: contributed once
RETIRED_BY_INSURANCE = 0.09  # aged 60 and over, not working
INSURED_CHILDREN = 0.7  # of those with an insured adult in the household
TAXPAYERS = {True: 0.05, False: 0.2}  # aged 18 and over, in poverty or not
TAXPAYER_STATES = Table(("ACTIVO", 0.7), ("SUSPENSION TEMPORAL", 0.14), ("CANCELADO", 0.14), ("BLOQUEADO", 0.02))
CERTIFIED = {"mild": 0.35, "severe": 0.6}  # disability → with a certificate
CERTIFICATE_EXPIRED = 0.15
KNOWN_TO_INDI = 0.9  # of those who live in an indigenous community
RESIDENCE_RECORDED = 0.85  # of foreigners
EXTRA_DOSES = 0.45  # aged 5 and over: vaccinated against influenza or COVID-19
