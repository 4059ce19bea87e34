"""Open Cybersecurity Schema Framework (OCSF) 1.9.0: entries of the log for a system that watches security events."""
