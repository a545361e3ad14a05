"""What wraps a model: each concern a file, put together in one sentence by the pipeline."""
