"""Segments into interchange files and engines."""
