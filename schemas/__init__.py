"""The vocabulary every other room speaks: messages, code lists, identifiers, and helpers without I/O."""
