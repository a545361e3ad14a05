"""Telling receivers that a run has ended: by a webhook, or by a file in a folder."""
