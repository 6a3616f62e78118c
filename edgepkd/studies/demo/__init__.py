"""Rebuilds the shipped bundles: joins training, export and the bundle writer."""
