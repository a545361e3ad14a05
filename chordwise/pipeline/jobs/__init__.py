"""The steps of a job: fan-out, chunks, synthesis, and its dispatch, retry and cancellation."""
