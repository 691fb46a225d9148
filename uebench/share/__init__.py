"""Results and poisons for others: bundles with hashes, their validation, and data cards."""
