"""The gate of `export RUN`: on which clips it judges, what it writes, and what it proposes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.config import MODALITIES
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32
from edgepkd.engines.targets import load_target
from edgepkd.errors import DataError, ModelError
from edgepkd.logits.clip_logits import ClipLogits, save_logits
from edgepkd.logits.fit import WiseRecipe, fit_deployed
from edgepkd.pipeline.export_gate import FOLD_LOGITS, Judged, fold_pair, pass_gate, report_stem
from tests.logits.made_logits import make_logits

ORDER: Order = ("mv", "iframe")


def noisy(answered: ClipLogits, share: float) -> dict[Any, np.ndarray]:
    """Logits with noise of a share of their spread."""
    rng = np.random.default_rng(1)
    return {m: x + rng.normal(size=x.shape) * share * x.std() for m, x in answered.logits.items()}


def judged(folder: Path, forms: dict[str, Any], answered: ClipLogits, **changes: Any) -> Judged:
    source = folder / "mine" / "int8-qad"
    source.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {
        "source": source, "out": folder / "mine.edgepkd", "target": load_target("onnx"),
        "order": ORDER, "split": "calibration", "answers": forms,
        "pairs": [(DEPLOYED, FAKE_QUANT), (DEPLOYED, FP32)], "labels": answered.labels,
        "is_fitted_here": True, "groups": answered.groups,
        "label_names": answered.label_names, "settings": WiseRecipe(),
        "fitted": fit_deployed(forms[DEPLOYED], answered.labels, settings=WiseRecipe(),
                               groups=answered.groups,
                               orders=[ORDER, ("mv",), ("iframe",)]), "method": "qad"}
    return Judged(**{**given, **changes})


def three(answered: ClipLogits, share: float) -> dict[str, Any]:
    int8 = noisy(answered, share)
    return {DEPLOYED: int8, FAKE_QUANT: int8, FP32: answered.logits}


def test_a_good_int8_cascade_passes_and_its_report_lies_beside_the_bundle(tmp_path: Path) -> None:
    answered = make_logits(num_clips=200)
    parity = pass_gate(judged(tmp_path, three(answered, 0.05), answered), allow_drift=False)
    assert parity.refused == ()
    assert [one.clips for one in parity.along] == ["calibration clips"] * 2
    assert json.loads((tmp_path / "mine.parity.json").read_text())["refused"] == []
    assert (tmp_path / "mine.parity.md").exists()


def test_what_was_fitted_elsewhere_combines_fp32_too(tmp_path: Path) -> None:
    """FP32 knows these clips by heart at one exit; weights of its own would lean on that."""
    answered = make_logits(num_clips=200)
    rng = np.random.default_rng(0)
    logits: Any = {m: 3 * rng.normal(size=x.shape) for m, x in answered.logits.items()}
    for m in ORDER:
        logits[m] += 2 * np.eye(3)[answered.labels][:, None]
    logits["iframe"][:, 2] = 9 * np.eye(3)[answered.labels]
    sums = {ORDER: (WiseWeights.ones(ORDER), ExitPolicy.constant(ORDER, threshold=1.0))}
    one = judged(tmp_path, dict.fromkeys((DEPLOYED, FAKE_QUANT, FP32), logits), answered,
                 fitted=sums)
    assert "nats more loss than that of torch FP32" in pass_gate(one, allow_drift=True).refused[0]
    found = pass_gate(replace(one, is_fitted_here=False), allow_drift=True)
    assert not [text for text in found.refused if "FP32" in text]
    assert {gap.agreement.value for along in found.along for gap in along.gaps} == {1.0}


def test_a_bad_one_is_refused_and_the_report_written_all_the_same(tmp_path: Path) -> None:
    answered = make_logits(num_clips=200)
    bad = judged(tmp_path, three(answered, 4.0), answered)
    (tmp_path / "mine" / "run.json").touch()
    with pytest.raises(ModelError) as caught:
        pass_gate(bad, allow_drift=False)
    assert "calibration clips: the ensemble at iframe_4 of OpenVINO" in caught.value.message
    assert f"Exit by exit: {tmp_path / 'mine.parity.md'}." in caught.value.message
    hint = str(caught.value.hint)
    run = tmp_path / "mine"
    assert (f"`edgepkd quantize {run} --method qad --set quantizer.keep_float=auto --sensitivity"
            " --force`") in hint
    assert f"`edgepkd quantize {run} --method ptq`" in hint
    assert "--allow-drift" in hint
    assert "more groups" not in hint
    assert "Refused:" in (tmp_path / "mine.parity.md").read_text()
    assert pass_gate(bad, allow_drift=True).refused


def test_of_a_run_without_its_parent_no_folder_is_made_up(tmp_path: Path) -> None:
    answered = make_logits(num_clips=40)
    with pytest.raises(ModelError) as caught:
        pass_gate(judged(tmp_path, three(answered, 6.0), answered, method="ptq"),
                  allow_drift=False)
    assert "edgepkd quantize RUN --method qad" in str(caught.value.hint)
    assert "40 clips were judged: more groups" in str(caught.value.hint)


def test_a_cascade_below_its_best_part_gets_another_order(tmp_path: Path) -> None:
    answered = make_logits(num_clips=200)
    wrong = WiseWeights(ORDER, tuple((0.0,) * (k - 1) + (-1.0,) for k in range(1, 9)))
    fitted = {ORDER: (wrong, ExitPolicy.constant(ORDER, threshold=1.0))}
    one = judged(tmp_path, {DEPLOYED: answered.logits, FP32: answered.logits}, answered,
                 pairs=[(DEPLOYED, FP32)], fitted=fitted, method=None)
    with pytest.raises(ModelError, match=r"is right .* points less often than iframe") as caught:
        pass_gate(one, allow_drift=False)
    assert f"`edgepkd export {one.source} --target onnx --order iframe`" in str(caught.value.hint)
    assert "quantize" not in str(caught.value.hint)
    seen = replace(one, split="train", is_fitted_here=False)
    assert pass_gate(seen, allow_drift=False).refused == (), "a network looks perfect on these"


def test_a_constant_answer_is_refused(tmp_path: Path) -> None:
    answered = make_logits(num_clips=60)
    rng = np.random.default_rng(0)
    know_nothing: Any = {m: rng.normal(size=(60, 4, 3)) for m in MODALITIES}
    none = WiseWeights(ORDER, tuple((0.0,) * k for k in range(1, 9)))
    one = judged(tmp_path, {DEPLOYED: know_nothing, FP32: know_nothing}, answered, method=None,
                 pairs=[(DEPLOYED, FP32)],
                 fitted={ORDER: (none, ExitPolicy.constant(ORDER, threshold=1.0))})
    with pytest.raises(ModelError, match=r"the full chain answers .bend. for 100\.0 %") as caught:
        pass_gate(one, allow_drift=False)
    assert f"`edgepkd eval {one.source} --split calibration`" in str(caught.value.hint)


def test_a_fault_of_the_export_blames_no_network(tmp_path: Path) -> None:
    answered = make_logits(num_clips=60)
    broken = {m: -x for m, x in answered.logits.items()}
    one = judged(tmp_path, {DEPLOYED: broken, FP32: answered.logits}, answered, method=None,
                 pairs=[(DEPLOYED, FP32)])
    with pytest.raises(ModelError, match="logits of mv_1 of OpenVINO differ") as caught:
        pass_gate(one, allow_drift=False)
    assert "`edgepkd doctor`" in str(caught.value.hint)


# ---- folds


def write_folds(one: Judged, int8: ClipLogits, as_float: ClipLogits) -> None:
    save_logits(int8, one.source / FOLD_LOGITS)
    save_logits(as_float, one.source.parent / FOLD_LOGITS)


def test_int8_is_judged_on_the_held_out_clips_of_the_folds_too(tmp_path: Path) -> None:
    few, many = make_logits(num_clips=20), make_logits(num_clips=300, seed=3)
    one = judged(tmp_path, three(few, 0.02), few)
    assert fold_pair(one.source) is None
    write_folds(one, replace(many, logits=noisy(many, 4.0)), many)
    with pytest.raises(ModelError) as caught:
        pass_gate(one, allow_drift=False)
    assert caught.value.message.startswith(
        "held-out clips of the folds: the ensemble at mv_1 of torch INT8")
    write_folds(one, replace(many, logits=noisy(many, 0.05)), many)
    parity = pass_gate(one, allow_drift=False)
    assert [(one.clips, one.gaps[0].agreement.num_clips) for one in parity.along] == [
        ("calibration clips", 20), ("calibration clips", 20),
        ("held-out clips of the folds", 300)]


def test_folds_of_other_clips_are_refused(tmp_path: Path) -> None:
    few = make_logits(num_clips=20)
    one = judged(tmp_path, three(few, 0.02), few)
    write_folds(one, make_logits(num_clips=30), make_logits(num_clips=31))
    with pytest.raises(DataError, match="hold answers to different clips"):
        pass_gate(one, allow_drift=False)


def test_the_report_has_the_name_of_the_bundle() -> None:
    assert report_stem(Path("a/b.c.edgepkd")) == Path("a/b.c")
