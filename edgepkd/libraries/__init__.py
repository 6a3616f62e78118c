"""Libraries that a process must have only one of, or that are used in one way everywhere."""
