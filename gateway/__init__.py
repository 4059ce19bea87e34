"""The gateway: serves the journeys of disclosure and referral over the four rooms below it."""
