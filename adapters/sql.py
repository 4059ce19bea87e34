"""Asks a producer's database (being written)."""
