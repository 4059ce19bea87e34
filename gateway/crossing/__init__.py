"""Crosses what several institutions say of one person into advice for an official; it decides nothing."""
