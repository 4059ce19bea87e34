"""SOAP services: descriptions read offline, messages checked both ways, security headers (WS-I Basic Profile 1.1)."""
