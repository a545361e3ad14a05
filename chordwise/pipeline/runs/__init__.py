"""What is read of runs: accounts, progress, results, and SQL of the user's own."""
