"""Schedules: their due times, the runner of their occurrences, and the kinds of work."""
