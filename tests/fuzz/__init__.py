"""Finds inputs that the decoder does not survive: `python -m tests.fuzz --minutes 60`.

`seeds` are tiny videos, `mutate` makes input number n of a seed from them, `target` does with it
what a user may do, `workers` forks children that work through them, `findings` keeps what went
wrong. Inputs that once went wrong lie in `corpus`, and `test_corpus` reads them all again.
"""
