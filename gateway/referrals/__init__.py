"""Referrals and counter-referrals: the state table, and the service that moves along it."""
