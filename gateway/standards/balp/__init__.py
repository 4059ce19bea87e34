"""FHIR R4 AuditEvent after IHE's Basic Audit Log Patterns (BALP)."""
