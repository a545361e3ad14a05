"""Queries about runs: accounts, progress, results, and the user's SQL."""
