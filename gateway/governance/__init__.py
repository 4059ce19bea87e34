"""Changes to what the decision reads, each authorised, done once and logged with it."""
