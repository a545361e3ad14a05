"""PostgreSQL: the queue of record, the results and the ledger; one module per noun."""
