"""What auditors are handed: the bundle that tells a referral's story, and the report of what stands out."""
