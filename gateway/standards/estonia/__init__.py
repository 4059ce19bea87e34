"""Shapes of Estonia's state services."""
