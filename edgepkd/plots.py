"""Plots as PNG files (extra `report`)."""
