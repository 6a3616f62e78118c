"""From a float run to an INT8 one: what is written, kept, refused, and read again."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from edgepkd import _optional
from edgepkd.config import MODALITIES, Modality
from edgepkd.datasets.index import read_index
from edgepkd.errors import ConfigError, DataError, MissingExtraError, ModelError, UsageError
from edgepkd.int8 import hash_of_clips
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.pipeline import quantize as pipeline
from edgepkd.pipeline.evaluate import EvalConfig, evaluate
from edgepkd.pipeline.flatness import FlatnessConfig
from edgepkd.pipeline.quantize import QuantDone, QuantizeConfig, quantize
from edgepkd.pipeline.train import ExitsConfig, train_all_exits
from edgepkd.pipeline.trained_run import clip_gmac, open_run
from edgepkd.pipeline.wise import WiseFitConfig, fit_wise_file
from edgepkd.quantize.checkpoint import load_quantized
from edgepkd.training.cache import cache_spec
from edgepkd.training.predict import views_protocol, weights_sha256
from edgepkd.training.runs import read_run
from tests.training.tiny_set import change_index, make_run, make_set, without_calibration

pytestmark = pytest.mark.slow

FEW: dict[str, Any] = {"min_clips": 2, "finetune.epochs": 2, "finetune.batch_clips": 2,
                       "finetune.select": "last"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    """A run with networks of random weights, whose exits say that the I-frame network taught."""
    return make_run(tmp_path / "run", data, method="iframe", last_teacher="own")


def settings(run: Path, cache: Path, **changes: Any) -> QuantizeConfig:
    return QuantizeConfig(**{
        "run": run, "cache": cache, "modalities": ("mv",), "jobs": 1, "threads": 1,
        "changes": {**FEW, **changes.pop("values", {})}, **changes})


def done(run: Path, cache: Path, **changes: Any) -> QuantDone:
    (one,) = quantize(settings(run, cache, **changes))
    return one


def record(run: Path, method: str, modality: Modality = "mv") -> dict[str, Any]:
    document = json.loads((run / f"int8-{method}" / "quantize.json").read_text())
    assert (document["schema_version"], document["method"]) == (1, method)
    return dict(document["networks"][modality])


@pytest.mark.parametrize("method", ["ptq", "qat"])
def test_without_calibration_clips_training_clips_judge(
    data: Path, cache: Path, tmp_path: Path, method: str
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "data"))
    change_index(own, without_calibration)
    one = done(make_run(tmp_path / "run", own), cache, method=method)
    assert one.judged_on == "training"
    assert one.values["kl_calibration"] > 0
    assert load_quantized(tmp_path / "run" / f"int8-{method}" / "mv")[2]["method"] == method


def test_ptq_leaves_a_run_that_says_how_it_came_about(run: Path, cache: Path, data: Path) -> None:
    one = done(run, cache, method="ptq")
    out = run / "int8-ptq"
    assert (one.path, one.kept, one.modality) == (out / "mv.json", False, "mv")
    assert set(one.values) == {"epoch", "kl_calibration", "loss_calibration",
                               *(f"accuracy_calibration_exit_{k}" for k in range(1, 5))}
    assert read_run(out).recipe == read_run(run).recipe
    assert read_run(out).labels == ("left", "right")
    assert (out / "quantize-mv" / "results.csv").read_text().startswith("epoch,kl_calibration")
    network, spec, extra = load_quantized(out / "mv")
    assert (extra["method"], spec.calibrator) == ("ptq", "max")
    facts = record(run, "ptq")
    index = read_index(data / "index.csv")
    keys = [cache_spec(read_run(run).recipe).key(s.sha256, s.form)
            for s in index if s.split == "train"]
    assert facts["calibration"] == {"num_clips": 4, "clips_sha256": hash_of_clips(keys)}
    assert facts["float_sha256"] == {"mv": weights_sha256(load_network(run / "mv")[0])}
    assert facts["weights_sha256"] == weights_sha256(network)
    assert "segments.0.head: pooling (M x M^T)" in facts["float_layers"]
    assert facts["versions"]["nvidia-modelopt"]
    assert facts["settings"]["quantizer"]["weight_bits"] == 7
    assert facts["settings"]["quantizer"]["bias_correction"] is True
    assert "target" not in facts


def test_every_exit_is_held_against_fp32_and_kept(run: Path, cache: Path) -> None:
    one = done(run, cache, method="ptq")
    assert [exit_.exit for exit_ in one.exits] == [1, 2, 3, 4]
    against = record(run, "ptq")["against_fp32"]
    assert (against["clips"], against["num_clips"]) == ("calibration", 2)
    assert against["exits"] == [asdict(exit_) for exit_ in one.exits]
    for exit_ in one.exits:
        assert exit_.accuracy_int8 == one.values[f"accuracy_calibration_exit_{exit_.exit}"]
        assert exit_.sqnr_db is not None
        assert exit_.kl >= 0
    assert sum(e.kl for e in one.exits) / 4 == pytest.approx(one.values["kl_calibration"],
                                                             abs=1e-6)
    kept = done(run, cache, method="ptq", resume=True)
    assert (kept.kept, kept.exits, kept.judged_on) == (True, one.exits, "calibration")


def test_what_fell_comes_with_what_was_not_tried_yet(run: Path, cache: Path) -> None:
    """Its clips are few and its weights random: only the advice is looked at."""
    start = f"edgepkd quantize {run} --method "
    end = "--force"
    values = {"quantizer.bias_correction": False}
    assert done(run, cache, method="ptq", values=values).advice == (
        f"{start}ptq --modality mv --set quantizer.bias_correction=true {end}")
    assert done(run, cache, method="ptq", force=True).advice == (
        f"{start}ptq --modality mv --set quantizer.keep_float=auto {end}")
    values = {"quantizer.keep_float": "auto"}
    auto = done(run, cache, method="ptq", force=True, values=values)
    assert auto.advice == f"{start}qad --modality mv {end}"
    assert load_quantized(auto.path.with_suffix(""))[1].is_auto is False


def test_names_for_other_networks_are_no_mistake(run: Path, cache: Path) -> None:
    values = {"quantizer.keep_float": ["mv:segments.0.trunk.conv1", "iframe:segments.9.x"]}
    done(run, cache, method="ptq", values=values)
    assert "segments.0.trunk.conv1: convolution" in record(run, "ptq")["float_layers"]
    with pytest.raises(ConfigError, match=r"keep_float is 'segments\.9\.x'"):
        done(run, cache, method="ptq", values=values, modalities=("iframe",))


def test_the_target_is_noted_with_its_bits(run: Path, cache: Path) -> None:
    done(run, cache, method="ptq", target="tensorrt")
    facts = record(run, "ptq")
    assert facts["target"] == "tensorrt"
    assert facts["settings"]["quantizer"]["weight_bits"] == 8


def test_qad_is_taught_as_the_exits_were_unless_told_otherwise(run: Path, cache: Path) -> None:
    done(run, cache, method="qad")
    facts = record(run, "qad")
    assert facts["settings"]["finetune"]["scheme"] == "iframe"
    assert set(facts["float_sha256"]) == {"mv", "iframe"}
    done(run, cache, method="qad", force=True, values={"finetune.scheme": "ce"})
    facts = record(run, "qad")
    assert facts["settings"]["finetune"]["scheme"] == "ce"
    assert set(facts["float_sha256"]) == {"mv"}
    done(run, cache, method="qat")
    assert record(run, "qat")["settings"]["finetune"]["scheme"] == "ce"


def test_resume_keeps_what_is_there_and_force_replaces_it(run: Path, cache: Path) -> None:
    first = done(run, cache, method="ptq")
    content = (run / "int8-ptq" / "mv.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"int8-ptq/mv\.json exists"):
        done(run, cache, method="ptq")
    kept = done(run, cache, method="ptq", resume=True)
    assert (kept.kept, kept.values, kept.sensitivity) == (True, first.values, ())
    for changed in ({"seed": 9}, {"calibrator": "mse"}, {"calibration_clips": 2}):
        with pytest.raises(UsageError, match="made with other settings, weights or clips"):
            done(run, cache, method="ptq", resume=True, **changed)
    again = done(run, cache, method="ptq", force=True)
    assert not again.kept
    assert (run / "int8-ptq" / "mv.safetensors").read_bytes() == content


def test_another_float_network_is_noticed(run: Path, cache: Path) -> None:
    done(run, cache, method="ptq")
    network, extra = load_network(run / "mv")
    network.segments[3].head.fc.bias.data += 1  # type: ignore[union-attr,operator]
    save_network(network, run / "mv", extra=extra)
    with pytest.raises(UsageError, match="made with other settings, weights or clips"):
        done(run, cache, method="ptq", resume=True)


def test_training_that_was_stopped_goes_on_to_the_same_bytes(
    run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(run, cache, method="qad")
    expected = (run / "int8-qad" / "mv.safetensors").read_bytes()
    shutil.rmtree(run / "int8-qad")
    real = pipeline.to_int8

    def stop_after_one(*arguments: Any, log: Any = None, **keywords: Any) -> Any:
        if log is None:  # PTQ, which comes first
            return real(*arguments, **keywords)

        class Stop(type(log)):  # type: ignore[misc]
            def row(self, *, epoch: int, **values: Any) -> None:
                if epoch == 1:
                    raise KeyboardInterrupt
                super().row(epoch=epoch, **values)

        log.__class__ = Stop
        return real(*arguments, log=log, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "to_int8", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            done(run, cache, method="qad")
    assert not (run / "int8-qad" / "mv.json").exists()
    resumed = done(run, cache, method="qad", resume=True)
    assert not resumed.kept
    assert (run / "int8-qad" / "mv.safetensors").read_bytes() == expected
    rows = (run / "int8-qad" / "quantize-mv" / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1"]


def test_networks_may_be_quantised_one_after_the_other(run: Path, cache: Path) -> None:
    done(run, cache, method="ptq")
    done(run, cache, method="ptq", modalities=("iframe",))
    assert record(run, "ptq") != record(run, "ptq", "iframe")
    assert tuple(open_run(run / "int8-ptq").networks) == ("mv", "iframe")


def test_all_networks_of_the_run_are_the_default(run: Path, cache: Path) -> None:
    (run / "residual.json").unlink()
    found = quantize(settings(run, cache, method="ptq", modalities=None))
    assert [one.modality for one in found] == ["mv", "iframe"]


def test_the_quantised_run_is_read_evaluated_and_fitted(run: Path, cache: Path) -> None:
    for _ in quantize(settings(run, cache, method="ptq", modalities=("mv", "iframe"))):
        pass
    out = run / "int8-ptq"
    trained = open_run(out)
    assert trained.is_quantized
    assert trained.quantization is not None
    assert trained.quantization["method"] == "ptq"
    for modality, digest in trained.hashes.items():
        assert digest == json.loads((out / f"{modality}.json").read_text())["weights_sha256"]
    plain = open_run(run)
    assert not plain.is_quantized
    assert plain.quantization is None
    views = views_protocol({m: trained.record.recipe.inputs[m] for m in trained.networks})
    whole = views_protocol({m: plain.record.recipe.inputs[m] for m in plain.networks})
    assert clip_gmac(trained, views)["mv"] == clip_gmac(plain, whole)["mv"]

    result = evaluate(EvalConfig(run=out, split="calibration", cache=cache))
    assert result.predicted.answered.weights_sha256 == trained.hashes
    logits = result.out / "logits.npz"
    fit_wise_file(WiseFitConfig(logits=logits, out=out, order="mv,iframe"))
    assert open_run(out).fitted
    with pytest.raises(DataError, match="the logits of mv come from weights"):
        fit_wise_file(WiseFitConfig(logits=logits, out=run, order="mv,iframe"))


def test_sensitivity_is_measured_before_training_and_written(run: Path, cache: Path) -> None:
    one = done(run, cache, method="qad", sensitivity=True)
    assert len(one.sensitivity) > 20
    facts = json.loads((run / "int8-qad" / "sensitivity.json").read_text())
    assert facts["min_sqnr_db"] == 20
    own = facts["networks"]["mv"]
    assert (own["num_clips"], own["num_frames"]) == (4, 4)
    assert [layer["layer"] for layer in own["layers"]] == [s.layer for s in one.sensitivity]
    kept = done(run, cache, method="qad", sensitivity=True, resume=True)
    assert kept.kept
    assert kept.sensitivity == one.sensitivity
    worst = one.sensitivity[0].layer
    done(run, cache, method="qad", force=True, values={"quantizer.keep_float": [worst]})
    assert any(name.startswith(f"{worst}:") for name in record(run, "qad")["float_layers"])


# ---- what is refused


def test_too_few_clips_are_refused_and_leave_nothing(run: Path, cache: Path) -> None:
    values = {"min_clips": 16}
    with pytest.raises(DataError, match="4 clips to calibrate on; allowed: 16 or more"):
        done(run, cache, method="ptq", values=values)
    assert not (run / "int8-ptq").exists()
    assert done(run, cache, method="ptq", values=values, force_few=True).path.exists()
    assert done(run, cache, method="ptq", values=values, force=True).path.exists()


def test_a_missing_teacher_is_refused_and_leaves_nothing(run: Path, cache: Path) -> None:
    (run / "iframe.safetensors").unlink()
    with pytest.raises(ModelError, match=r"the network of iframe is needed and cannot be read.*"
                                         "edgepkd train exits"):
        done(run, cache, method="qad")
    assert not (run / "int8-qad").exists()
    done(run, cache, method="qat")  # needs none
    with pytest.raises(ModelError, match="the network of iframe is needed"):
        done(run, cache, method="ptq", modalities=("iframe",))


def test_a_run_without_exits_is_refused(run: Path, cache: Path) -> None:
    for modality in MODALITIES:
        (run / f"{modality}.json").unlink()
    with pytest.raises(DataError, match=r"has no network with all exits.*edgepkd train exits"):
        list(quantize(settings(run, cache, modalities=None)))


def test_verbs_that_need_float_networks_refuse_a_quantised_run(run: Path, cache: Path) -> None:
    done(run, cache, method="ptq")
    out = run / "int8-ptq"
    with pytest.raises(UsageError, match="holds quantised networks, and float ones are needed"):
        done(out, cache, method="qad")
    with pytest.raises(UsageError, match="holds quantised networks"):
        list(train_all_exits(ExitsConfig(run=out, cache=cache)))
    with pytest.raises(UsageError, match="flatness is asked for, and the networks are quantised"):
        evaluate(EvalConfig(run=out, cache=cache, flatness=FlatnessConfig()))
    assert not (out / "eval-log.jsonl").exists()


def test_without_modelopt_the_extra_is_named(
    run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(run, cache, method="ptq")

    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(_optional.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"'nvidia-modelopt'.*edgepkd\[train\]"):
        done(run, cache, method="qat")


def test_torchrun_is_refused(run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="quantising runs in one process, and there are 2"):
        done(run, cache)


def test_a_damaged_record_is_refused(run: Path, cache: Path) -> None:
    done(run, cache, method="ptq")
    (run / "int8-ptq" / "quantize.json").write_text("{")
    with pytest.raises(DataError, match=r"quantize\.json is damaged"):
        open_run(run / "int8-ptq")
    with pytest.raises(DataError, match=r"quantize\.json is damaged"):
        done(run, cache, method="ptq", force=True)
    assert load_quantized(run / "int8-ptq" / "mv")  # refused before anything was replaced


# ---- other clips


def test_other_clips_may_calibrate(run: Path, cache: Path, data: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(data, tmp_path / "own"))
    done(run, cache, method="ptq", data=own)
    assert read_run(run / "int8-ptq").index == (own / "index.csv").resolve()


def test_clips_on_other_sides_than_in_training_are_refused(
    run: Path, cache: Path, data: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "own"))
    sides = {"train": "test", "test": "train"}
    change_index(own, lambda row: {**row, "split": sides.get(row["split"], row["split"])})
    with pytest.raises(DataError, match="held out in one of two indices and trained on in"):
        done(run, cache, method="ptq", data=own)
    assert not (run / "int8-ptq").exists()


def test_labels_that_the_networks_do_not_know_are_refused(
    run: Path, cache: Path, data: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "own"))
    change_index(own, lambda row: {**row, "label": "up" if row["label"] == "left" else "right"})
    with pytest.raises(DataError, match="labelled up, which the networks do not know"):
        done(run, cache, method="ptq", data=own)
