"""Labels that a mirror image makes wrong: left and right, clockwise and anticlockwise.

Whole words of a label count, and pairs that are one label but for the side: `upright`, `bright`,
`leftover` or `copyright` name no side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIDES: tuple[tuple[str, str], ...] = (
    ("left", "right"), ("leftward", "rightward"), ("leftwards", "rightwards"),
    ("lefthand", "righthand"), ("lefthanded", "righthanded"), ("leftmost", "rightmost"),
    ("anticlockwise", "clockwise"), ("counterclockwise", "clockwise"), ("ccw", "cw"),
    ("acw", "cw"), ("links", "rechts"), ("linke", "rechte"), ("linker", "rechter"),
    ("gauche", "droite"), ("izquierda", "derecha"), ("esquerda", "direita"),
    ("sinistra", "destra"), ("左", "右"), ("налево", "направо"),
    ("влево", "вправо"), ("слева", "справа"),
)
_LETTERS = ("l", "r")
"""A side only where two labels differ in them alone, and no third one in another letter there."""
_GLUED = ("left", "right")
"""Also inside a word, where both labels exist: turnleft, turnright."""
_WORD = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TWO_WORDS = {("anti", "clockwise"): "anticlockwise", ("counter", "clockwise"): "counterclockwise"}

Words = tuple[str, ...]


def mirror_pairs(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of `labels` of which each is the other one's mirror image, by their names.

    First those that differ in the side alone; where there is none, the first label of either side.
    """
    split = {label: words_of(label) for label in labels}
    pairs = [(a, b) for a in labels for b in labels
             if a != b and _differs_in_side(split[a], split[b], split)]
    if pairs:
        return tuple(pairs)
    for one, other in _SIDES:
        first = [label for label in labels if one in split[label] and other not in split[label]]
        second = [label for label in labels if other in split[label] and one not in split[label]]
        if first and second:
            return ((first[0], second[0]),)
    return ()


def words_of(label: str) -> Words:
    """Lower-case words of a label: `TurnLeft`, `turn_left` and `turn-left` have the same."""
    found = [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", label))]
    joined: list[str] = []
    for word in found:
        if joined and (joined[-1], word) in _TWO_WORDS:
            joined[-1] = _TWO_WORDS[joined[-1], word]
        else:
            joined.append(word)
    return tuple(joined)


def _differs_in_side(a: Words, b: Words, split: dict[str, Words]) -> bool:
    """Whether `b` is `a` with each side swapped; for one order of the two only."""
    if len(a) != len(b):
        return False
    places = [i for i in range(len(a)) if a[i] != b[i]]
    return bool(places) and _are_sides(a, b, places[0], split) and all(
        _are_sides(a, b, i, split) or _are_sides(b, a, i, split) for i in places[1:])


def _are_sides(a: Words, b: Words, i: int, split: dict[str, Words]) -> bool:
    if (a[i], b[i]) in _SIDES:
        return True
    if (a[i], b[i]) == _LETTERS:
        alike = {words[i] for words in split.values()
                 if len(words) == len(a) and words[:i] + words[i + 1:] == a[:i] + a[i + 1:]}
        return not {word for word in alike if len(word) == 1} - {*_LETTERS}
    one, other = _GLUED
    return one in a[i] and a[i].replace(one, other) == b[i]
