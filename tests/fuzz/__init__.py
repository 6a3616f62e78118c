"""Finds inputs that the decoder does not survive: `python -m tests.fuzz --minutes 60`.

`streams` and `seeds` are tiny videos, `mutate` makes input number n of a series from them (with
`bits`, `units` and `muxers`), `target` does with it what a user may do, `workers` forks children
that work through them. Inputs that once went wrong lie in `corpus`; `test_corpus` reads them again.
"""
