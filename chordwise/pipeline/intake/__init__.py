"""Taking documents in: profiles, the options of a run, submitting and resuming."""
