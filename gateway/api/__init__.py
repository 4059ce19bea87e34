"""The REST face of the gateway: one module per resource, no rules of its own."""
