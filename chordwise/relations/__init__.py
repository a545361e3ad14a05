"""Reads: what commands, pages and the client show, each declared once over views and tables.

This room knows the driver of PostgreSQL, but not SQLAlchemy: commands that only read start fast.
"""
