"""Labelled clips: index files and splits, and how a folder of videos becomes a training set."""
