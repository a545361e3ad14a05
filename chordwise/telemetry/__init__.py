"""Logs and health of the processes."""
