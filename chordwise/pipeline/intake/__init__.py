"""Intake of documents: profiles, the options of a run, submitting and resuming."""
