"""Schedules: what is due, the runner that carries it out, and the kinds of work."""
