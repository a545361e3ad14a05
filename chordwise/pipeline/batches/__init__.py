"""The batch lane: prepares batches, exchanges them with the provider and stores their answers."""
