"""Institutions and services: who gives what, to whom, and how soon they answer."""
