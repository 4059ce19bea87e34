"""Speaks to producers: one contract, a manifest per system, and whatever they do ends in a typed outcome."""
