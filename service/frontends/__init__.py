"""Several HTTP processes before one engine process, over shared memory; Linux only."""
