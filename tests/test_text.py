"""Text of others: what a terminal obeys becomes visible, all the rest stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from edgepkd.text import about, command, counted, markdown, shown


@pytest.mark.parametrize(("text", "expected"), [
    ("a\x1b[31mb", r"a\x1b[31mb"),
    ("bell\x07 nul\x00 del\x7f csi\x9b31m", r"bell\x07 nul\x00 del\x7f csi\x9b31m"),
    ("one\ntwo\r\nthree\tfour", r"one\ntwo\r\nthree\tfour"),
    ("vt\x0b ff\x0c nel\x85 ls\u2028 ps\u2029", r"vt\x0b ff\x0c nel\x85 ls\u2028 ps\u2029"),
    ("gpj.\u202egnp\u202c", r"gpj.\u202egnp\u202c"),
    ("\u2066a\u2069\u200b\ufeff", r"\u2066a\u2069\u200b\ufeff"),
    (b"caf\xe9.mp4".decode("utf-8", "surrogateescape"), r"caf\udce9.mp4"),
])
def test_what_a_terminal_obeys_is_written_as_an_escape(text: str, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize("text", [
    "", "walk", "[bold]x[/bold]", r"C:\new\x1b", "चलना", "เดิน", "Cafe\u0301", "50% off", "walk 🚶",
    "👩\u200d🚀", "क\u094d\u200dष", "می\u200cرود",
    "\U0001f3f4\U000e0067\U000e0062\U000e007f", "שלום\u200f!",
])
def test_what_has_a_shape_stays(text: str) -> None:
    assert shown(text) == text


@pytest.mark.slow
def test_no_control_character_is_left() -> None:
    every = "".join(map(chr, range(0x11_0000)))
    left = {char for char in shown(every)
            if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
            or unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI",
                                                   "FSI", "PDI", "B")}
    assert left == set()


@pytest.mark.parametrize(("text", "expected"), [
    ("no_fight", "no_fight"), ("_x_", r"\_x\_"), ("a|b`c*", r"a\|b\`c\*"),
    ("[x](y) <b>", r"\[x\](y) \<b\>"), ("# head", r"\# head"), ("12. Mai", r"12\. Mai"),
    ("one\n\n# two", r"one\\n\\n# two"), ("50% off, $5", r"50% off, \$5"), ("3.5 m", r"3\.5 m"),
])
def test_markdown_is_text_and_no_markup(text: str, expected: str) -> None:
    assert markdown(text) == expected


@pytest.mark.parametrize(("words", "expected"), [
    (("edgepkd", "export", Path("demo.edgepkd"), "--target", "onnx"),
     "edgepkd export demo.edgepkd --target onnx"),
    ((Path("my clips/it's.mp4"),), """'my clips/it'"'"'s.mp4'"""),
    ((Path("$(id)`id`;&|>*"),), "'$(id)`id`;&|>*'"),
    ((Path("-x.edgepkd"), "--force"), "./-x.edgepkd --force"),
    ((Path("a\nb'\\\x1b7"),), r"$'a\012b\'\\\0337'"),
    (("", "\ud800"), r"'' $'\355\240\200'"),
])
def test_a_command_is_quoted(words: tuple[str | Path, ...], expected: str) -> None:
    assert command(*words) == expected
    assert shown(command(*words)) == command(*words), "showing it changes nothing"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize("word", [
    "plain", "two words", "it's", '"', "$(touch x)", "a\nb", "~", "!!", "{a,b}", "\x9b\u202e1",
    "\x1b]52;c;aGk=\x07", "back\\slash\n'", os.fsdecode(b"caf\xe9"), "-rf", "--", "#", "चलना",
])
def test_a_shell_reads_back_what_was_meant(word: str) -> None:
    line = command("printf", "%s", Path(word))
    done = subprocess.run(["bash", "-c", os.fsencode(line)], capture_output=True, check=True)
    assert os.fsdecode(done.stdout) == (f"./{word}" if word.startswith("-") else word)


def test_one_of_a_kind_has_no_s() -> None:
    assert [counted(n, "clip") for n in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]
    assert counted(2, "entry", plural="entries") == "2 entries"


def test_a_message_names_its_source_once() -> None:
    assert about("a.mp4", "it breaks off.") == "a.mp4: it breaks off."
    assert about("a.mp4", "a.mp4 is cut off.") == "a.mp4 is cut off."
