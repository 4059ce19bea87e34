"""Human Services Data Specification (Open Referral HSDS) 3.0: another face on the catalogue, and its files."""
