"""`train exits RUN --out OTHER`: exits by another method on the same trunks, as a run of its own.

The trunks are copied, not linked: the other run can be moved, exported and quantised like any, and
nothing that is done to the first one later changes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgepkd import plain_json
from edgepkd.config import Modality
from edgepkd.errors import ModelError, UsageError
from edgepkd.files import write_together
from edgepkd.outputs import check_folder
from edgepkd.pipeline.step_logs import refuse_quantized
from edgepkd.training.runs import RUN_FILE, Run, read_run, refuse_other_run

SUFFIXES = (".safetensors", ".json")
"""Of a network; the JSON, which says that it is whole, comes last."""


def check_out(run: Run, out: Path) -> None:
    """Refuse a folder for the exits of `run` that is its own, or holds another run.

    Raises:
        UsageError: names what differs.
    """
    check_folder("--out", out)
    if out.resolve() == run.folder.resolve():
        raise UsageError(f"--out {out} is the run itself.",
                         hint="Leave --out out to train its exits, or name another folder.")
    refuse_quantized(out)
    if (out / RUN_FILE).exists():
        refuse_other_run(read_run(out), replace(run, folder=out))


def copy_trunks(run: Run, out: Path, modalities: Iterable[Modality]) -> Run:
    """`run` in the folder `out`, with the trunks of `modalities`.

    Raises:
        UsageError: there is a trunk with other weights. ModelError: one of `run` cannot be read.
        StorageError: they cannot be written.
    """
    other = replace(run, folder=out, trunks_from=run.trunks_from or str(run.folder.resolve()))
    for modality in modalities:
        there = other.trunk(modality)
        try:
            files = {f"{there.name}{suffix}":
                     run.trunk(modality).with_name(there.name + suffix).read_bytes()
                     for suffix in SUFFIXES}
        except OSError as error:
            raise ModelError(f"the trunk of {modality} is needed and cannot be read:"
                             f" {error.strerror}.",
                             hint=f"Train it: edgepkd train backbone {run.folder}") from error
        present = there.with_name(f"{there.name}.json")
        if not present.exists():
            write_together(out, files)
        elif _sha256(present.read_bytes()) != _sha256(files[f"{there.name}.json"]):
            raise UsageError(f"{present} is another trunk than that of {run.folder}.",
                             hint="Name another folder with --out.")
    return other


def _sha256(document: bytes) -> object:
    """Of the weights, as a network's JSON says; None: it says nothing."""
    try:
        return plain_json.loads(document)["weights_sha256"]
    except (ValueError, KeyError, TypeError):
        return None
