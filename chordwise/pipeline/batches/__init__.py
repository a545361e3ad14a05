"""The batch lane: questions that wait for a batch, batches at the provider, and what comes back."""
