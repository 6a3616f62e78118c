"""Which labels a mirror image makes wrong, and which only look like it."""

from __future__ import annotations

import pytest

from edgepkd.datasets.mirror import mirror_pairs, words_of


@pytest.mark.parametrize(("one", "other"), [
    ("left", "right"), ("turn_left", "turn_right"), ("Turn Left", "Turn Right"),
    ("TurnLeft", "TurnRight"), ("turn-left", "turn-right"), ("left turn", "right turn"),
    ("swipe to_the_left fast", "swipe to_the_right fast"), ("turnleft", "turnright"),
    ("L_punch", "R_punch"), ("punch_L", "punch_R"), ("LHand", "RHand"), ("L", "R"),
    ("links_abbiegen", "rechts_abbiegen"), ("rotate_anticlockwise", "rotate_clockwise"),
    ("rotate anti-clockwise", "rotate clockwise"), ("counter clockwise", "clockwise"),
    ("spin CCW", "spin CW"), ("leftwards", "rightwards"), ("giro_izquierda", "giro_derecha"),
    ("tourne à gauche", "tourne à droite"), ("влево", "вправо"), ("左", "右"),
    ("left_hand_to_right", "right_hand_to_left"), ("LEFT", "RIGHT"), ("left2", "right2"),
])
def test_labels_that_differ_in_the_side_are_a_pair(one: str, other: str) -> None:
    for labels in ((one, other, "walk"), (other, "walk", one)):
        (pair,) = {frozenset(pair) for pair in mirror_pairs(labels)}
        assert pair == {one, other}


@pytest.mark.parametrize("labels", [
    ("walk", "run", "jump"), ("upright", "bright", "leftover", "copyright"),
    ("sit_upright", "lie_down"), ("left", "walk"), ("right", "wrong"), ("right_answer", "other"),
    ("clockwise", "still"), ("fright", "cleft"), ("bright", "light", "flight"), ("cleft", "bright"),
    tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), ("class_l", "class_r", "class_m"), ("l", "s"),
    ("rock", "lock"), ("rink", "link"), ("side", "pjump"), ("port", "star board"),
    ("left right", "walk"), ("links", "walk"), ("delight", "deright"), (),
])
def test_other_labels_raise_no_alarm(labels: tuple[str, ...]) -> None:
    assert mirror_pairs(labels) == ()


def test_all_pairs_are_found() -> None:
    labels = ("turn_left", "turn_right", "step_left", "step_right", "wait")
    assert mirror_pairs(labels) == (("turn_left", "turn_right"), ("step_left", "step_right"))


def test_sides_without_a_twin_are_named_by_one_of_each() -> None:
    assert mirror_pairs(("swerve_right", "wait", "turn_left", "go_left")) == (
        ("turn_left", "swerve_right"),)


def test_labels_are_cut_into_words_however_they_are_written() -> None:
    assert (words_of("TurnLeft"), words_of("turn_left"), words_of("turn-left 2")) == (
        ("turn", "left"), ("turn", "left"), ("turn", "left", "2"))
    assert words_of("rotate Anti-Clockwise") == ("rotate", "anticlockwise")
    assert words_of("HDLeft") == ("hd", "left")
