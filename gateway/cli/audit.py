"""``siis audit``: the group; each command's module is imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from schemas.text import _

# Each command and its module: those that check a file need next to nothing of the house.
_PARTS = {
    "verify": "audit_log",
    "show": "audit_log",
    "verify-proof": "audit_offline",
    "verify-checkpoints": "audit_offline",
    "verify-export": "audit_offline",
    "consistency": "audit_consistency",
    "search": "audit_export",
    "export": "audit_export",
    "bundle": "audit_bundle",
    "anomalies": "audit_anomalies",
    "witnesses": "audit_witnesses",
    "log-keys": "audit_witnesses",
    "prune": "audit_retention",
}


class _Commands(TyperGroup):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name them."""
        return list(_PARTS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one; ``None`` where there is none of this name."""
        if cmd_name not in _PARTS:
            return None
        found = get_command(import_module(f"gateway.cli.{_PARTS[cmd_name]}").app)
        found = found.commands[cmd_name] if isinstance(found, TyperGroup) else found
        found.name = cmd_name
        return found


app = typer.Typer(cls=_Commands, help=_("El registro de auditoría."), no_args_is_help=True, add_completion=False)


@app.callback()
def _root() -> None:
    """Hold the commands together."""
