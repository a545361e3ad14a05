"""Process 2: the dispatcher of the outbox and recovery; any number of replicas."""
