"""The device side: runs a bundle's segments one by one until the answer is sure enough."""
