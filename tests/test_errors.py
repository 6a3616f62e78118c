"""Every error is one message, a next step and an exit code."""

from __future__ import annotations

import inspect

from edgepkd import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)
         if issubclass(kind, errors.EdgepkdError)]


def test_message_and_next_step_are_one_text() -> None:
    error = errors.SourceError("x.mp4 is empty.", hint="Copy it again.")
    assert str(error) == "x.mp4 is empty. Copy it again."
    assert (error.message, error.hint) == ("x.mp4 is empty.", "Copy it again.")
    assert str(errors.SourceError("x.mp4 is empty.")) == "x.mp4 is empty."


def test_a_wrong_request_ends_with_2_and_all_else_with_1() -> None:
    assert len(KINDS) >= 12
    for kind in KINDS:
        assert kind.exit_code == (2 if issubclass(kind, errors.UsageError) else 1), kind.__name__


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for kind in KINDS:
        assert f"{kind.__name__} " in errors.__doc__, kind.__name__
