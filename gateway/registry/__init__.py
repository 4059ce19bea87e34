"""Persons, households and what is known of their protection: facts with source, date and instrument."""
