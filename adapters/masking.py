"""Decides what of a bad value may be shown: its shape, from which nothing about a person can be got back."""

from __future__ import annotations

_MOST = 40
_KEPT = frozenset(" .,;:/-_+@#()'\"%=<>|\\")


def shape(value: str) -> str:
    """Return the shape of a value, at most 40 characters of it.

    Every digit becomes ``9`` (how many there are is what is wrong with a number or date); a run of letters becomes one
    ``a`` or ``A``, whatever its length, so that no name and no code can be told from another; ASCII punctuation stays;
    control characters and bytes outside the encoding become ``¿``.
    """
    shown: list[str] = []
    for character in value[: 8 * _MOST]:
        if character.isdigit():
            shown.append("9")
        elif character.isalpha():
            if not shown or shown[-1] not in "aA":
                shown.append("A" if character.isupper() else "a")
        elif character in _KEPT:
            shown.append(character)
        else:
            shown.append("¿")
        if len(shown) > _MOST:
            return "".join(shown[:_MOST]) + "…"
    return "".join(shown)
