"""Rate and concurrency limits of providers, shared by all processes that call them."""
