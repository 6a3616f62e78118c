"""`edgepkd wise fit` on the command line: tables, JSON lines, notes, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgepkd.logits.clip_logits import save_logits
from edgepkd.logits.fit_files import read_fitted
from tests.cli.calling import invoke, lines
from tests.logits.made_logits import make_logits


@pytest.fixture
def logits(tmp_path: Path) -> Path:
    save_logits(make_logits(), tmp_path / "calibration.npz")
    return tmp_path / "calibration.npz"


def test_the_table_shows_every_position(logits: Path, tmp_path: Path) -> None:
    done = invoke("wise", "fit", logits, "--out", tmp_path / "run", "--order", "mv,iframe")
    assert done.exit_code == 0, done.output
    for position in ("mv_1", "mv_4", "iframe_4"):
        assert f" {position} " in done.stdout
    assert "plain sum" in done.stdout
    assert "full chain of each order" not in done.stdout
    assert done.stderr == ""
    weights, _ = read_fitted(tmp_path / "run")[0]["mv", "iframe"]
    row = next(line for line in done.stdout.splitlines() if " mv_3 " in line).split()
    assert [float(cell) for cell in row[1:4]] == pytest.approx(weights.vectors[2], rel=5e-3)


def test_all_orders_are_summed_up(logits: Path, tmp_path: Path) -> None:
    done = invoke("wise", "fit", logits, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    table = done.stdout.split("the full chain of each order")[1]
    for order in ("mv,residual,iframe", "iframe,mv", "residual"):
        assert f" {order} " in table
    assert len(read_fitted(tmp_path / "run")[0]) == 15


def test_json_lines_replace_the_table(logits: Path, tmp_path: Path) -> None:
    done = invoke("wise", "fit", logits, "--out", tmp_path / "run", "--order", "mv", "--json", "-",
                  "--variant", "no-lateral", "--l2", "0.5", "--no-policy")
    assert done.exit_code == 0, done.output
    order, summary = lines(done.stdout)
    assert (order["kind"], summary["kind"]) == ("wise_order", "wise_fit")
    assert order["order"] == "mv"
    assert [row["position"] for row in order["positions"]] == ["mv_1", "mv_2", "mv_3", "mv_4"]
    last = order["positions"][-1]
    assert last["weights"][:3] == [0, 0, 0]
    assert last["ensemble"] == last["alone"]
    assert order["thresholds"] == [1.0] * 4
    assert summary["settings"]["l2"] == 0.5
    assert summary["policy"] is None
    assert done.stderr.startswith("note: no lateral")


def test_flags_reach_the_fit(logits: Path, tmp_path: Path) -> None:
    for flag, expected in (("--allow-negative", False), ("--non-negative", True)):
        done = invoke("wise", "fit", logits, "--out", tmp_path / "run", flag, "--json", "-",
                      "--l1", "0.01", "--accuracy-loss", "0.1", "--min-confidence", "0.5",
                      "--safety-clips", "0", "--order", "mv", "--force")
        summary = lines(done.stdout)[-1]
        assert summary["settings"] == {"l1": 0.01, "l2": 0.01, "non_negative": expected}
        assert summary["policy"] == {
            "accuracy_loss": 0.1, "min_confidence": 0.5, "safety_clips": 0}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--method", "paper", "--l1", "0.1"], 2, "error: l1 is 0.1; allowed: nothing with method"),
    (["--method", "paper", "--allow-negative"], 2, "error: non_negative is False; allowed"),
    (["--order", "mv,sound"], 2, "error: order is 'mv,sound'"),
    (["--json", "/no/such/folder/a.json"], 2, "error: --json"),
])
def test_a_wrong_request_is_one_message(
    logits: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = invoke("wise", "fit", logits, "--out", tmp_path / "run", *arguments)
    assert done.exit_code == code
    assert done.stderr.startswith(message)
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def test_the_test_split_is_refused_with_the_next_step(tmp_path: Path) -> None:
    save_logits(make_logits(split="test"), tmp_path / "test.npz")
    done = invoke("wise", "fit", tmp_path / "test.npz", "--out", tmp_path / "run",
                  "--json", tmp_path / "fit.json")
    assert done.exit_code == 1
    assert "error: the logits are of the test split" in done.stderr
    assert "  next: Write the logits of split calibration" in done.stderr
    assert not (tmp_path / "fit.json").exists()
    done = invoke("wise", "fit", tmp_path / "test.npz", "--out", tmp_path / "run", "--allow-test")
    assert done.exit_code == 0
    assert "note: fitted on the test split" in done.stderr


@pytest.mark.slow
def test_neither_help_nor_a_fit_imports_torch(logits: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from edgepkd.cli.main import app
for arguments in (["wise", "--help"], ["wise", "fit", "--help"]):
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code
print("HEAVY", sorted({{"numpy", "scipy", "torch", "rich"}} & set(sys.modules)))
try:
    app(["wise", "fit", {str(logits)!r}, "--out", {str(tmp_path / "run")!r}])
except SystemExit as end:
    assert not end.code
print("TORCH", "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=Path(__file__).resolve().parents[2], timeout=60, check=True)
    assert "HEAVY []" in done.stdout
    assert "TORCH False" in done.stdout
