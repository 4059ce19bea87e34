"""The boards of social protection in departments and districts, and the cases of the priority track (Canal Verde)."""
