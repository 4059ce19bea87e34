"""Lets ``python -m gateway.cli`` stand for ``siis``."""

from gateway.cli import main

main()
