"""What a process works with: its context, leases, messages and broker."""
