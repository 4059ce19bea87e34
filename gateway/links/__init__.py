"""Signed links by which a small office without a system answers one referral."""
