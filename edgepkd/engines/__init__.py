"""A bundle's segments into engines of one target, without torch."""
