"""The model client, and the ledger, budgets, cache and batch queue that it writes to."""
