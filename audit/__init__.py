"""The log that remembers who did what to whose data, and can show that nobody changed it."""
