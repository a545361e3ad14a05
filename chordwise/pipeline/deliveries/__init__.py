"""The ways in which others are told that a run ended: a webhook, and a file."""
