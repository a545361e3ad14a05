"""Language model clients: the `ChatModel` interface, its providers, and the middleware."""
