"""The batch lane: preparing batches, exchanging them with the provider, their answers."""
