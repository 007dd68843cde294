"""Public helpers for tests: what a user of meshnode, or the author of a driver, runs in their own suite."""
