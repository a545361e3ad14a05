"""Notifies receivers that a run has ended: by a webhook, or by files in a folder."""
