"""Decides which elements may follow which in an answer, by the content models of XML Schema 1.0.

A model is compiled into one function that takes the children of an element in order. A schema's models need one look
ahead and no more (clause 3.8.6, unique particle attribution), so nothing is ever tried twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lxml import etree

from adapters.errors import ContractBroken

Read = Callable[[etree._Element], Any]
Children = deque[etree._Element]
Take = Callable[[Children, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Occurs:
    """How often a particle stands: at least and at most (None: without end)."""

    least: int = 1
    most: int | None = 1


@dataclass(frozen=True, slots=True)
class Leaf:
    """An element, or those that may stand for it: by qualified name, the name it is kept under and its reader."""

    name: str
    readers: Mapping[str, tuple[str, Read]]
    occurs: Occurs


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Any element of some namespaces: allowed, and left out."""

    accepts: Callable[[str], bool]
    occurs: Occurs


@dataclass(frozen=True, slots=True)
class Group:
    """``kind`` is sequence, choice or all."""

    kind: str
    parts: Sequence[Particle]
    occurs: Occurs


Particle = Leaf | Wildcard | Group


@dataclass(frozen=True, slots=True)
class _Compiled:
    """``starts`` are the names it may begin with, ``wild`` tells of any other; ``empty``: it may be nothing at all."""

    starts: Mapping[str, object]
    wild: Callable[[str], bool] | None
    empty: bool
    what: str
    take: Take

    def begins(self, children: Children) -> bool:
        """Say whether the next child is its beginning."""
        if not children:
            return False
        tag = children[0].tag
        return tag in self.starts or (self.wild is not None and self.wild(tag))


def compile_model(model: Particle) -> tuple[Take, tuple[str, ...]]:
    """Return what takes a model's children, and the names that may repeat: always lists in what was read."""
    repeated = tuple(name for name, times in _count(model).items() if times > 1)
    return _compile(model, frozenset(repeated)).take, repeated


def _count(particle: Particle) -> Counter[str]:
    """Count how often a name may stand; two means any number."""
    found: Counter[str] = Counter()
    if isinstance(particle, Leaf):
        found.update({name for name, _read in particle.readers.values()})
    elif isinstance(particle, Group):
        for part in particle.parts:
            inner = _count(part)
            found = found | inner if particle.kind == "choice" else found + inner
    if particle.occurs.most == 1:
        return found
    return Counter(dict.fromkeys(found, 2)) if particle.occurs.most != 0 else Counter()


def _compile(particle: Particle, repeated: frozenset[str]) -> _Compiled:
    if isinstance(particle, Leaf):
        return _leaf(particle, repeated)
    if isinstance(particle, Wildcard):
        return _wildcard(particle)
    parts = [_compile(part, repeated) for part in particle.parts if part.occurs.most != 0]
    once = {"sequence": _sequence, "choice": _choice, "all": _all}[particle.kind](parts)
    return once if particle.occurs == Occurs() else _repeat(once, particle.occurs)


def _leaf(leaf: Leaf, repeated: frozenset[str]) -> _Compiled:
    readers, what, least, most = leaf.readers, leaf.name, leaf.occurs.least, leaf.occurs.most

    def one(children: Children, content: dict[str, Any]) -> None:
        if children and (found := readers.get(children[0].tag)) is not None:
            content[found[0]] = found[1](children.popleft())
        elif least:
            raise ContractBroken(f"{what}: missing, or not in its place")

    def several(children: Children, content: dict[str, Any]) -> None:
        taken = 0
        while children and (most is None or taken < most):
            found = readers.get(children[0].tag)
            if found is None:
                break
            name, value = found[0], found[1](children.popleft())
            if name in repeated:
                content[name].append(value)
            else:
                content[name] = value
            taken += 1
        if taken < least:
            raise ContractBroken(f"{what}: missing, or not in its place")

    # A name that repeats elsewhere in its type is a list here too.
    lists = any(name in repeated for name, _read in readers.values())
    return _Compiled(readers, None, not least, what, several if lists else one)


def _wildcard(wildcard: Wildcard) -> _Compiled:
    accepts, least, most = wildcard.accepts, wildcard.occurs.least, wildcard.occurs.most

    def take(children: Children, content: dict[str, Any]) -> None:
        taken = 0
        while children and (most is None or taken < most) and accepts(children[0].tag):
            children.popleft()
            taken += 1
        if taken < least:
            raise ContractBroken("an element of another namespace: missing, or not in its place")

    return _Compiled({}, accepts, not least, "an element of another namespace", take)


def _sequence(parts: list[_Compiled]) -> _Compiled:
    takes = [part.take for part in parts]

    def take(children: Children, content: dict[str, Any]) -> None:
        for each in takes:
            each(children, content)

    first: list[_Compiled] = []
    for part in parts:
        first.append(part)
        if not part.empty:
            break
    return _union(first, all(part.empty for part in parts), take)


def _choice(parts: list[_Compiled]) -> _Compiled:
    by_name: dict[str, Take] = {}
    for part in parts:
        for tag in part.starts:
            by_name.setdefault(tag, part.take)
    wild = [part for part in parts if part.wild is not None]
    empty = not parts or any(part.empty for part in parts)
    what = " | ".join(part.what for part in parts)

    def take(children: Children, content: dict[str, Any]) -> None:
        if children:
            tag = children[0].tag
            found = by_name.get(tag)
            if found is None:
                found = next((part.take for part in wild if part.wild is not None and part.wild(tag)), None)
            if found is not None:
                return found(children, content)
        if not empty:
            raise ContractBroken(f"{what}: missing, or not in its place")

    return _union(parts, empty, take, what)


def _all(parts: list[_Compiled]) -> _Compiled:
    by_name = {tag: place for place, part in enumerate(parts) for tag in part.starts}

    def take(children: Children, content: dict[str, Any]) -> None:
        left = set(range(len(parts)))
        while children and (place := by_name.get(children[0].tag)) in left:
            parts[place].take(children, content)
            left.discard(place)
        for place in left:
            if not parts[place].empty:
                raise ContractBroken(f"{parts[place].what}: missing, or not in its place")

    return _union(parts, all(part.empty for part in parts), take)


def _repeat(once: _Compiled, occurs: Occurs) -> _Compiled:
    least, most = occurs.least, occurs.most

    def take(children: Children, content: dict[str, Any]) -> None:
        taken, left = 0, -1
        while (most is None or taken < most) and len(children) != left and once.begins(children):
            left = len(children)
            once.take(children, content)
            taken += 1
        if taken < least and not once.empty:
            raise ContractBroken(f"{once.what}: missing, or not in its place")

    return _Compiled(once.starts, once.wild, once.empty or not least, once.what, take)


def _union(parts: Sequence[_Compiled], empty: bool, take: Take, what: str = "") -> _Compiled:
    starts = {tag: None for part in parts for tag in part.starts}
    wilds = [part.wild for part in parts if part.wild is not None]
    wild = (lambda tag: any(each(tag) for each in wilds)) if wilds else None
    return _Compiled(starts, wild, empty, what or (parts[0].what if parts else ""), take)
