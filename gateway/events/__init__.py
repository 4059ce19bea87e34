"""What happened, for others to be told: published in the transaction in which it happened, ids only."""
