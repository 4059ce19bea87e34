"""Simulated institutions: real servers on loopback in the shapes Paraguay's systems have, which can misbehave on order.

Each is a process of its own (``python -m adapters.simulator NAME``). They stand for somebody else's systems, so they
share no code with the adapters that speak to them: a mistake there cannot hide behind the same mistake here.
"""
