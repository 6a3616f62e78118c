"""Whole experiments on labelled sets, from clips to tables."""
