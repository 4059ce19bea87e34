"""Masks for what a person may see on a screen or a log line without needing the whole value."""

from __future__ import annotations


def mask(value: str, visible: int = 3) -> str:
    """Keep the last ``visible`` characters, hide the others: ``4123456`` becomes ``····456``."""
    hidden = max(len(value) - visible, 0)
    return "·" * hidden + value[hidden:]
