"""Nominal reports of referrals: to each institution of its own services, to each board of its place."""
