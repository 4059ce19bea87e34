"""Erasure of a person, the epochs of keys that make it reach backups, and pruning of the log."""
