"""The rights of the person and breaches of personal data: what must be done, by whom, until when (Ley 7593/2025)."""
