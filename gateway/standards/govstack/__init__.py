"""GovStack Consent Building Block 1.1.0-rc1: another face on the same agreements, persons and consents."""
