"""Durable delivery of referrals to their recipients."""
