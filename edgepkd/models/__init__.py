"""Backbones, internal classifiers and the segmented early-exit network (torch)."""
