"""Which logits WISE weights may be fitted on, and whose networks they must be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgepkd import plain_json
from edgepkd.cascade import Order, positions
from edgepkd.config import Modality
from edgepkd.errors import DataError
from edgepkd.logits.clip_logits import ClipLogits


def check_logits(
    answered: ClipLogits, *, orders: Sequence[Order], allow_test: bool = False
) -> tuple[str, ...]:
    """Refuse logits that nothing should be fitted on; returns notes on doubtful ones.

    Raises:
        DataError: no clips, one class, a label out of range, values that are not finite, or the
            test split without `allow_test`.
    """
    if answered.split == "test" and not allow_test:
        raise DataError("the logits are of the test split; allowed: clips that are neither trained"
                        " on nor tested on.",
                        hint="Write the logits of split calibration, or pass --allow-test and"
                             " measure nothing on these clips afterwards.")
    _check_labels(answered)
    for modality in sorted({modality for order in orders for modality in order}):
        bad = np.argwhere(~np.isfinite(answered.logits[modality]))
        if bad.size:
            clip, exit_, _ = bad[0]
            raise DataError(f"logits of {modality}_{exit_ + 1} for {answered.paths[clip]} are not"
                            f" finite ({len(np.unique(bad[:, 0]))} clips in all).",
                            hint="The network is broken; see its training log.")
    return _notes_on_clips(answered, orders)


def _check_labels(answered: ClipLogits) -> None:
    labels, names = answered.labels, answered.label_names
    seen = np.unique(labels)
    if seen.size and (seen[0] < 0 or seen[-1] >= len(names)):
        raise DataError(f"labels are {seen[0]}..{seen[-1]}; allowed: 0..{len(names) - 1}"
                        f" for {len(names)} label names.", hint="Write the logits again.")
    if seen.size < 2:
        found = f"one class, {names[seen[0]]}" if seen.size else "no clips"
        raise DataError(f"the logits file holds {found}; allowed: clips of two or more classes.",
                        hint="Put more groups into the calibration split.")


def _notes_on_clips(answered: ClipLogits, orders: Sequence[Order]) -> tuple[str, ...]:
    names, labels = answered.label_names, answered.labels
    notes = []
    if absent := [name for i, name in enumerate(names) if not (labels == i).any()]:
        notes.append(f"no clip of {', '.join(absent)}: nothing is known about these classes")
    longest = max(len(positions(order)) for order in orders)
    if len(answered) < longest:
        notes.append(f"{len(answered)} clips for vectors of up to {longest} weights: more weights"
                     " than clips, so trust a strong l2 or fewer modalities more")
    if answered.split == "train":
        notes.append("the logits are of the training split, on which late exits are surer than"
                     " they ought to be (the reference's way)")
    if answered.split == "test":
        notes.append("fitted on the test split: do not report accuracies of these clips")
    return tuple(notes)


def check_networks(answered: ClipLogits, folder: Path) -> tuple[Modality, ...]:
    """Compare the logits' networks with those in `folder`; returns which ones are there.

    A network is NAME.json beside NAME.safetensors, as `save_network` writes them.

    Raises:
        DataError: one has other weights, or its file cannot be read.
    """
    compared: list[Modality] = []
    for modality, expected in answered.weights_sha256.items():
        path = folder / f"{modality}.json"
        try:
            found = plain_json.loads(path.read_bytes())["weights_sha256"]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"network file {path} cannot be read: {error!r}.",
                            hint="Save the network again, or name another --out.") from error
        if found != expected:
            raise DataError(
                f"the logits of {modality} come from weights {expected[:12]}…; {path} holds"
                f" {str(found)[:12]}….",
                hint="Answer the clips again with the networks of this run: `edgepkd eval`.")
        compared.append(modality)
    return tuple(compared)
