"""The command that comes next on the way from a folder of clips to a device, ready to be pasted.

    data prepare -> train backbone -> train exits -> train folds -> wise fit -> eval (test)
    -> quantize -> wise fit and eval of the INT8 networks -> export -> check -> run

Each verb ends with one of these lines. An empty line: nothing follows, or nobody can say what.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edgepkd.config import MODALITIES, Modality
from edgepkd.text import command

CACHE = Path("runs/cache")
"""Where decoded clips are kept if nothing else is said: then it need not be named again."""
CALIBRATION = "calibration"


def after_data(folder: Path) -> str:
    """After `data prepare`, `data synth`, and `data verify` of a set that is well."""
    return command("edgepkd", "train", "backbone", Path("runs") / (folder.resolve().name or "mine"),
                   "--data", folder)


def after_backbone(run: Path, trained: Collection[Modality], *, cache: Path = CACHE) -> str:
    """After `train backbone`, where the run now has the trunks `trained`."""
    if missing := _missing(trained):
        return command("edgepkd", "train", "backbone", run, "--modality", missing, *_kept(cache))
    return command("edgepkd", "train", "exits", run, *_kept(cache))


def after_exits(run: Path, trained: Collection[Modality], *, cache: Path = CACHE) -> str:
    """After `train exits`, where the run now has all exits of the networks `trained`."""
    if missing := _missing(trained):
        return command("edgepkd", "train", "exits", run, "--modality", missing, *_kept(cache))
    return command("edgepkd", "train", "folds", run, *_kept(cache))


def after_folds(run: Path, *, cache: Path = CACHE) -> str:
    """After `train folds` of a run."""
    return _fit(run, cache)


def after_eval(
    run: Path, *, split: str, is_fitted: bool, is_quantized: bool,
    int8: Path | None = None, cache: Path = CACHE,
) -> str:
    """After `eval` of a run.

    `is_fitted`: it has WISE weights. `int8`: the folder of its quantised networks, where there is
    one already.
    """
    if split == CALIBRATION:
        return _fit(run, cache, *(["--force"] if is_fitted else []))
    if split != "test":
        return ""
    if not is_fitted:
        return _fit(run, cache)
    if is_quantized:
        name = f"{run.resolve().parent.name}-{run.resolve().name}.edgepkd"
        return command("edgepkd", "export", run, "--target", "onnx", "--out",
                       run.parent.with_name(name) if run.parent.name else Path(name),
                       *_kept(cache))
    if int8 is not None:
        return _fit(int8, cache)
    return command("edgepkd", "quantize", run, *_kept(cache))


def after_wise_fit(run: Path) -> str:
    """After `wise fit` into the folder of a run."""
    return command("edgepkd", "eval", run)


def after_quantize(out: Path, *, cache: Path = CACHE) -> str:
    """After `quantize`, which wrote the run `out`."""
    return _fit(out, cache)


def after_export(bundle: Path) -> str:
    """After `export`, of a run or of a bundle."""
    return command("edgepkd", "check", bundle)


def after_check(bundle: Path, verdict: str) -> str:
    """After `check`; what is to be built again it says itself."""
    return f"{command('edgepkd', 'run')} VIDEO {command('--model', bundle)}" \
        if verdict == "ok" else ""


def _fit(run: Path, cache: Path, *more: str) -> str:
    return command("edgepkd", "wise", "fit", run, *more, *_kept(cache))


def _missing(trained: Collection[Modality]) -> str:
    return ",".join(modality for modality in MODALITIES if modality not in trained)


def _kept(cache: Path) -> tuple[str | Path, ...]:
    """What keeps a verb from decoding all clips again elsewhere."""
    return () if cache == CACHE else ("--cache", cache)
