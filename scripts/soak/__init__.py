"""Processes that use one memory and are killed, and what must be left of it."""
