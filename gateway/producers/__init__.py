"""The producers' systems as this deployment has them: opened, read again when files change, their health told."""
