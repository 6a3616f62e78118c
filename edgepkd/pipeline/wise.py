"""`wise fit`: from the logits of held-out clips to WISE weights and an exit policy on disk.

    >>> result = fit_wise_file(WiseFitConfig(logits=Path("calibration.npz"), out=Path("runs/a")))
    >>> print("all twelve exits:", result.orders[0].rows[-1].ensemble)
    all twelve exits: ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from edgepkd.bundle.manifest import POLICY, WISE
from edgepkd.cascade import (
    ExitPolicy,
    Floats,
    Order,
    WiseWeights,
    parse_order,
    positions,
    prefix_logits,
)
from edgepkd.config import MODALITIES, Modality, check
from edgepkd.errors import UsageError
from edgepkd.logits.clip_logits import ClipLogits, load_logits
from edgepkd.logits.fit import WiseRecipe
from edgepkd.logits.fit_files import RECORD, write_fitted
from edgepkd.logits.metrics import Accuracy
from edgepkd.logits.policy import fit_policy
from edgepkd.logits.report import accuracy_of
from edgepkd.logits.wise import (
    Convex,
    Method,
    PaperSgd,
    WiseVariant,
    all_orders,
    fit_orders,
    in_order,
    kkt_violation,
    wise_objective,
)
from edgepkd.machine.conditions import conditions
from edgepkd.outputs import check_outputs
from edgepkd.pipeline.wise_checks import check_logits, check_networks

MethodName = Literal["convex", "paper"]
VariantName = Literal["full", "no-scaling", "no-lateral", "division"]
VARIANTS: Mapping[VariantName, WiseVariant] = {
    "full": WiseVariant(),
    "no-scaling": WiseVariant(scaling=False),
    "no-lateral": WiseVariant(lateral=False),
    "division": WiseVariant(division=True),
}
ALL_ORDERS = "all"
_SEPARATED = 1e-3
"""Cross-entropy below which weights without a pull have run off towards infinity."""
_AT_OPTIMUM = 1e-3
"""`kkt_violation` up to which the solver has done its work."""


@dataclass(frozen=True, kw_only=True)
class WiseFitConfig:
    """What to fit, from which logits."""

    logits: Path
    """File of clip logits (.npz), as `eval` writes it."""
    out: Path
    """Folder of the run; its networks (mv.json …), where there are any, must be those of the
    logits."""
    order: str = ALL_ORDERS
    """`mv,residual,iframe`, or `all`: every order of the modalities in the file."""
    method: MethodName = "convex"
    l1: float | None = None
    """Of method convex only, as are the next two; None: 0."""
    l2: float | None = None
    """None: 0.01."""
    non_negative: bool | None = None
    """None: true."""
    variant: VariantName = "full"
    policy: bool = True
    """False: temperatures 1 and no early exit."""
    accuracy_loss: float = WiseRecipe.accuracy_loss
    min_confidence: float = WiseRecipe.min_confidence
    safety_clips: int = WiseRecipe.safety_clips
    allow_test: bool = False
    """Take logits of the test split: what is measured on it later is then worth nothing."""
    force: bool = False
    """Replace a fit that is in `out` already."""

    def __post_init__(self) -> None:
        check(self.method in get_args(MethodName), "method", got=self.method,
              allowed=", ".join(get_args(MethodName)))
        check(self.variant in VARIANTS, "variant", got=self.variant, allowed=", ".join(VARIANTS))
        for name in ("l1", "l2", "non_negative"):
            value = getattr(self, name)
            check(self.method == "convex" or value is None, name, got=value,
                  allowed="nothing with method paper, whose pulls are fixed")
            check(VARIANTS[self.variant].scaling or value is None, name, got=value,
                  allowed="nothing with variant no-scaling, which fits no weights")
        WiseRecipe(accuracy_loss=self.accuracy_loss, min_confidence=self.min_confidence,
                   safety_clips=self.safety_clips)  # its checks
        self.fitting  # noqa: B018  (checks of l1 and l2)

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written."""
        return tuple(self.out / name for name in (WISE, POLICY, RECORD))

    @property
    def fitting(self) -> Method:
        """The method with its settings."""
        if self.method == "paper":
            return PaperSgd()
        given = {name: value for name in ("l1", "l2", "non_negative")
                 if (value := getattr(self, name)) is not None}
        return Convex(**given)


@dataclass(frozen=True)
class WiseRow:
    """One position of an order, on the clips that its weights were fitted on."""

    position: str
    """mv_1 … iframe_4."""
    weights: tuple[float, ...]
    loss: float
    """Mean cross-entropy of the ensemble at temperature 1, in nats."""
    ensemble: Accuracy
    """Of the weighted ensemble up to here."""
    alone: Accuracy
    """Of this exit's own logits."""
    plain_sum: Accuracy
    """Of the sum of all logits up to here."""
    kkt: float | None
    """Distance from the optimum (`kkt_violation`); None where nothing was solved."""


@dataclass(frozen=True)
class OrderFit:
    """What was fitted for one order."""

    order: Order
    weights: WiseWeights
    policy: ExitPolicy
    rows: tuple[WiseRow, ...]


@dataclass(frozen=True)
class WiseFitResult:
    """What `wise fit` found and where it wrote it (wise.json, policy.json, wise-fit.json)."""

    out: Path
    orders: tuple[OrderFit, ...]
    num_clips: int
    facts: Mapping[str, Any]
    """The record: method, settings, clips, SHA-256 of the logits and of the networks."""
    notes: tuple[str, ...]
    """What a reader of the numbers should know."""


def fit_wise_file(config: WiseFitConfig) -> WiseFitResult:
    """Fit weights and policy for the orders asked for and write them to `config.out`.

    Raises:
        DataError: the logits are absent, damaged, not finite, of one class, of the test split, or
            of other networks than those in `out`. UsageError: an order the logits do not hold.
        MissingExtraError: scipy is not installed. StorageError: `out` cannot be written.
    """
    check_outputs([("--out", path) for path in config.files], reads=[config.logits],
                  force=config.force, makes_folders=True)
    answered = load_logits(config.logits)
    orders = _orders(config.order, answered)
    notes = check_logits(answered, orders=orders, allow_test=config.allow_test)
    compared = check_networks(answered, config.out)
    weights = fit_orders(answered.logits, answered.labels, orders=orders,
                         method=config.fitting, variant=VARIANTS[config.variant])
    fits = tuple(_order_fit(weights[order], answered, config) for order in orders)
    facts = _facts(config, answered, compared=compared)
    write_fitted({fit.order: (fit.weights, fit.policy) for fit in fits}, config.out, facts=facts)
    return WiseFitResult(config.out, fits, len(answered), facts,
                         (*notes, *_notes_on_fits(fits, config)))


def _orders(text: str, answered: ClipLogits) -> tuple[Order, ...]:
    """The orders asked for.

    Raises:
        UsageError: not an order, or one with a modality that the logits file does not hold.
    """
    held = tuple(modality for modality in MODALITIES if modality in answered.logits)
    if text == ALL_ORDERS:
        longest_first = sorted(all_orders(held), key=len, reverse=True)
        return tuple(longest_first)
    order = parse_order(text)
    if missing := [modality for modality in order if modality not in held]:
        raise UsageError(f"order is {text!r}, but the logits file has none of"
                         f" {', '.join(missing)}; allowed: orders of {', '.join(held)}.",
                         hint="Leave them out, or write the logits of all networks.")
    return (order,)


# ---- results


def _order_fit(weights: WiseWeights, answered: ClipLogits, config: WiseFitConfig) -> OrderFit:
    order, labels = weights.order, answered.labels
    logits = in_order(answered.logits, order)
    policy = ExitPolicy.constant(order, threshold=1.0)
    if config.policy:
        policy = fit_policy(logits, labels, weights=weights, accuracy_loss=config.accuracy_loss,
                            min_confidence=config.min_confidence,
                            safety_clips=config.safety_clips)
    combined = prefix_logits(logits, weights).argmax(axis=2)
    plain = logits.cumsum(axis=1).argmax(axis=2)
    alone = logits.argmax(axis=2)
    rows = tuple(
        WiseRow(str(position), vector, kkt=_kkt(vector, logits[:, : k + 1], answered, config),
                loss=wise_objective(np.array(vector), logits[:, : k + 1], labels, l2=0.0)[0],
                ensemble=accuracy_of(combined[:, k], labels),
                alone=accuracy_of(alone[:, k], labels),
                plain_sum=accuracy_of(plain[:, k], labels))
        for k, (position, vector) in enumerate(zip(positions(order), weights.vectors, strict=True))
    )
    return OrderFit(order, weights, policy, rows)


def _kkt(
    vector: tuple[float, ...], logits: Floats, answered: ClipLogits, config: WiseFitConfig
) -> float | None:
    method = config.fitting
    if config.variant != "full" or not isinstance(method, Convex):
        return None
    return kkt_violation(np.array(vector), logits, answered.labels, method=method)


def _notes_on_fits(fits: Sequence[OrderFit], config: WiseFitConfig) -> tuple[str, ...]:
    """What a variant means, weights that say nothing, or that no finite number is right for."""
    notes = []
    if config.variant == "no-lateral":
        notes.append("no lateral: the last exit, too, decides alone, without late fusion")
    if config.variant == "division" and config.policy:
        notes.append("division: the fitted temperatures undo it; --no-policy shows its effect")
    silent = sorted({row.position for fit in fits for row in fit.rows if not any(row.weights)})
    if silent:
        notes.append(f"all weights are 0 at {', '.join(silent)}: the exit answers the first label"
                     " whatever it sees; lower l1, or train this exit better")
    method = config.fitting
    pulled = not isinstance(method, Convex) or method.l1 > 0 or method.l2 > 0
    if config.variant != "no-scaling" and not pulled:
        notes += sorted({
            f"{row.position} separates all clips: without l1 or l2 its weights have no finite"
            " optimum" for fit in fits for row in fit.rows if row.loss < _SEPARATED
        })
    if short := sorted({row.position for fit in fits for row in fit.rows
                        if row.kkt is not None and row.kkt > _AT_OPTIMUM}):
        notes.append(f"the solver stopped before the optimum at {', '.join(short)}: the logits"
                     " differ too much in scale")
    return tuple(notes)


def _facts(
    config: WiseFitConfig, answered: ClipLogits, *, compared: Sequence[Modality]
) -> dict[str, Any]:
    """How the weights came about, as plain JSON values."""
    policy = {name: getattr(config, name)
              for name in ("accuracy_loss", "min_confidence", "safety_clips")}
    return {
        **conditions(("numpy", "scipy")),
        "method": config.method,
        "settings": asdict(config.fitting),
        "variant": {"name": config.variant, **asdict(VARIANTS[config.variant])},
        "policy": policy if config.policy else None,
        "num_clips": len(answered),
        "clips_per_label": {name: int((answered.labels == i).sum())
                            for i, name in enumerate(answered.label_names)},
        "split": answered.split,
        "views": str(answered.views),
        "logits_file": config.logits.name,
        "logits_sha256": hashlib.sha256(config.logits.read_bytes()).hexdigest(),
        "weights_sha256": dict(answered.weights_sha256),
        "networks_compared": list(compared),
    }
