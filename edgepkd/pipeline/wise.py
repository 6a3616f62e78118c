"""`wise fit`: from the logits of held-out clips to WISE weights and an exit policy on disk.

    >>> result = fit_wise_file(WiseFitConfig(logits=Path("calibration.npz"), out=Path("runs/a")))
    >>> print("all twelve exits:", result.orders[0].rows[-1].ensemble)
    all twelve exits: ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from edgepkd import plain_json
from edgepkd.bundle.manifest import POLICY, WISE
from edgepkd.cascade import (
    ExitPolicy,
    Floats,
    Labels,
    Order,
    WiseWeights,
    order_key,
    parse_order,
    positions,
    prefix_logits,
)
from edgepkd.config import MODALITIES, NUM_EXITS, Modality, check
from edgepkd.errors import DataError, UsageError
from edgepkd.logits.choice import STRENGTHS, Choice, CrossFit, Kind, Take, choose
from edgepkd.logits.clip_logits import ClipLogits
from edgepkd.logits.fit import WiseRecipe, policy_on
from edgepkd.logits.fit_files import RECORD, write_fitted
from edgepkd.logits.metrics import Accuracy
from edgepkd.logits.report import accuracy_of
from edgepkd.logits.trial import Trial, try_cascade
from edgepkd.logits.wise import (
    Convex,
    Method,
    PaperSgd,
    WiseVariant,
    all_orders,
    in_order,
    kkt_violation,
    wise_objective,
)
from edgepkd.machine.conditions import conditions
from edgepkd.outputs import check_outputs
from edgepkd.pipeline.wise_checks import check_logits, check_networks
from edgepkd.pipeline.wise_evidence import Rests, evidence_of, gather
from edgepkd.pipeline.wise_verdict import best_order, refused

MethodName = Literal["convex", "paper"]
VariantName = Literal["full", "no-scaling", "no-lateral", "division"]
VARIANTS: Mapping[VariantName, WiseVariant] = {
    "full": WiseVariant(),
    "no-scaling": WiseVariant(scaling=False),
    "no-lateral": WiseVariant(lateral=False),
    "division": WiseVariant(division=True),
}
ALL_ORDERS = "all"
RUN_FILE = "run.json"
_SEPARATED = 1e-3
"""Cross-entropy below which weights without a pull have run off towards infinity."""
_AT_OPTIMUM = 1e-3
"""`kkt_violation` up to which the solver has done its work."""


@dataclass(frozen=True, kw_only=True)
class WiseFitConfig:
    """What to fit, from which logits."""

    logits: Path
    """Folder of a run, for all its held-out clips (`wise_evidence.gather`), or a file of clip
    logits (.npz), as `eval` writes it."""
    out: Path | None = None
    """Folder of the run; its networks (mv.json …), where there are any, must be those of the
    logits. None: `logits`, where that is a folder."""
    order: str = ALL_ORDERS
    """`mv,residual,iframe`, or `all`: every order of the modalities in the file."""
    take: Take | None = None
    """'auto': plain sums, unless cross-fitting shows WISE to be better (`choice.choose`); 'wise' or
    'sums': that one. None: 'wise' where the next five say how, else 'auto'."""
    method: MethodName | None = None
    """None: convex."""
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
    cache: Path = Path("runs/cache")
    """Where decoded clips are kept."""

    def __post_init__(self) -> None:
        if self.out is None and not self.logits.is_dir():
            raise UsageError(f"{self.logits} is no folder of a run, and no --out was named.",
                             hint="Name the run's folder, or give --out RUN.")
        check(self.take in (None, *get_args(Take)), "take", got=self.take,
              allowed=", ".join(get_args(Take)))
        check(self.take in (None, "wise") or not self.is_named, "take", got=self.take,
              allowed="wise where method, variant, l1, l2 or non_negative is given")
        check(self.method in (None, *get_args(MethodName)), "method", got=self.method,
              allowed=", ".join(get_args(MethodName)))
        check(self.variant in VARIANTS, "variant", got=self.variant, allowed=", ".join(VARIANTS))
        for name in ("l1", "l2", "non_negative"):
            value = getattr(self, name)
            check(self.method != "paper" or value is None, name, got=value,
                  allowed="nothing with method paper, whose pulls are fixed")
            check(VARIANTS[self.variant].scaling or value is None, name, got=value,
                  allowed="nothing with variant no-scaling, which fits no weights")
        self.settings, self.fitting  # noqa: B018  (their checks)

    @property
    def folder(self) -> Path:
        """Where the fit goes."""
        return self.out or self.logits

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written."""
        return tuple(self.folder / name for name in (WISE, POLICY, RECORD))

    @property
    def is_named(self) -> bool:
        """Whether it is said how WISE weights are fitted."""
        given = (self.l1, self.l2, self.non_negative)
        return (self.method, self.variant, *given) != (None, "full", None, None, None)

    @property
    def is_comparison(self) -> bool:
        """Whether a method is fitted to be compared, with its faults, rather than to be used."""
        return self.method == "paper" or self.variant != "full"

    @property
    def settings(self) -> WiseRecipe:
        """What the policy may lose, and what is taken."""
        return WiseRecipe(
            take=self.take or ("wise" if self.is_named else "auto"),
            accuracy_loss=self.accuracy_loss, min_confidence=self.min_confidence,
            safety_clips=self.safety_clips)

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
class HeldOutScore:
    """One way to weigh exits at one position, on clips that it was fitted without."""

    accuracy: float
    loss: float
    """Mean cross-entropy, nats."""


@dataclass(frozen=True)
class HeldOutRow:
    """The last exit of a network, and what WISE, plain sums and the best exit so far say there."""

    position: str
    scores: Mapping[Kind, HeldOutScore]


@dataclass(frozen=True, eq=False)
class OrderFit:
    """What was fitted for one order."""

    order: Order
    weights: WiseWeights
    policy: ExitPolicy
    rows: tuple[WiseRow, ...]
    choice: Choice
    """What was taken and why."""
    trial: Trial
    """The cascade, cross-fitted."""

    @property
    def held_out(self) -> tuple[HeldOutRow, ...]:
        """The end of each network."""
        places = positions(self.order)
        return tuple(
            HeldOutRow(str(places[k]), {
                kind: HeldOutScore(float(track.right[:, k].mean()),
                                   float(track.losses[:, k].mean()))
                for kind, track in self.choice.tracks.items()})
            for k in range(NUM_EXITS - 1, len(places), NUM_EXITS))

    @property
    def facts(self) -> dict[str, Any]:
        """What was taken, as plain JSON values."""
        return {
            "taken": self.choice.taken.kind, "l2": self.choice.taken.l2, "why": self.choice.why,
            "held_out": [asdict(row) for row in self.held_out],
            "cascade": {"accuracy": float(self.trial.right.mean()),
                        "mean_exit": float(self.trial.exits.mean()),
                        "less_best_exit": asdict(self.trial.shortfall.difference)}}


@dataclass(frozen=True)
class WiseFitResult:
    """What `wise fit` found and where it wrote it (wise.json, policy.json, wise-fit.json)."""

    out: Path
    orders: tuple[OrderFit, ...]
    """The run's own order first, where all were asked for."""
    num_clips: int
    rests_on: str
    """The clips, in a sentence."""
    facts: Mapping[str, Any]
    """The record: method, settings, clips, SHA-256 of the logits and of the networks."""
    notes: tuple[str, ...]
    """What a reader of the numbers should know."""


def fit_wise_file(config: WiseFitConfig) -> WiseFitResult:
    """Fit weights and policy for the orders asked for and write them to `config.folder`.

    Raises:
        DataError: the logits are absent, damaged, not finite, of one class, of the test split, or
            of other networks than those in `out`; or the fit answers a constant, or worse than the
            best of its exits. UsageError: an order the logits do not hold.
        MissingExtraError: scipy is not installed. StorageError: `out` cannot be written.
    """
    reads = [] if config.logits.is_dir() else [config.logits]
    check_outputs([("--out", path) for path in config.files], reads=reads, force=config.force,
                  makes_folders=True)
    rests = gather(config.logits, cache=config.cache)
    answered = rests.answered
    orders = _orders(config.order, answered, own=_own_order(config.folder))
    notes = check_logits(answered, orders=orders, allow_test=config.allow_test)
    compared = check_networks(answered, config.folder)
    fitter = _Fitter(config, answered)
    fits, faults = _sound(fitter, orders)
    facts = {**_facts(config, rests, compared=compared),
             "orders": {order_key(fit.order): fit.facts for fit in fits}}
    write_fitted({fit.order: (fit.weights, fit.policy) for fit in fits}, config.folder, facts=facts)
    return WiseFitResult(config.folder, fits, len(answered), str(rests), facts,
                         (*notes, *faults, *_notes_on_fits(fits, config)))


def _own_order(folder: Path) -> Order:
    """The order that the run in `folder` asks its networks in; nothing where there is no run."""
    try:
        return tuple(plain_json.loads((folder / RUN_FILE).read_bytes())["recipe"]["default_order"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


class _Fitter:
    """Fits orders from one set of logits."""

    def __init__(self, config: WiseFitConfig, answered: ClipLogits) -> None:
        self.config, self.answered = config, answered
        self.evidence = evidence_of(answered)
        self.cross = CrossFit(self.evidence, method=config.fitting if config.is_named else None,
                              variant=VARIANTS[config.variant], take=config.settings.take)

    def fit(self, order: Order) -> OrderFit:
        choice = choose(self.cross.tracks(order), self.evidence, take=self.config.settings.take)
        trial = self.trial(choice)
        return OrderFit(order, choice.taken.weights, trial.policy,
                        _rows(choice, self.answered, self.config), choice, trial)

    def trial(self, choice: Choice) -> Trial:
        order = choice.taken.weights.order

        def policy(combined: Floats, labels: Labels) -> ExitPolicy:
            if not self.config.policy:
                return ExitPolicy.constant(order, threshold=1.0)
            return policy_on(combined, labels, order=order, settings=self.config.settings)

        return try_cascade(choice, self.evidence, fit=policy)

    def fault(self, fit: OrderFit) -> str | None:
        return fit.trial.fault(self.answered.label_names)

    def refused(self, fit: OrderFit, what: str) -> DataError:
        """The error, with the command that helps."""
        config, auto = self.config, choose(self.cross.tracks(fit.order), self.evidence)
        held = tuple(m for m in MODALITIES if m in self.answered.logits)
        others = (self.fit(order).trial for order in all_orders(held) if order != fit.order)
        names = self.answered.label_names
        return refused(
            what, named=config.logits, out=config.folder, better=best_order(others, names),
            take_auto=config.settings.take != "auto" and not self.trial(auto).fault(names))


def _sound(
    fitter: _Fitter, orders: Sequence[Order]
) -> tuple[tuple[OrderFit, ...], tuple[str, ...]]:
    """Fits of the orders that may be used, and a note on each other one.

    Raises:
        DataError: the first may not.
    """
    fits = [fitter.fit(order) for order in orders]
    faults = {fit.order: what for fit in fits if (what := fitter.fault(fit))}
    if fitter.config.is_comparison:
        return tuple(fits), tuple(faults.values())
    if fits[0].order in faults:
        raise fitter.refused(fits[0], faults[fits[0].order])
    return (tuple(fit for fit in fits if fit.order not in faults),
            tuple(f"left out: {what}" for what in faults.values()))


def _orders(text: str, answered: ClipLogits, *, own: Order) -> tuple[Order, ...]:
    """The orders asked for; of all, that of the run, `own`, first.

    Raises:
        UsageError: not an order, or one with a modality that the logits file does not hold.
    """
    held = tuple(modality for modality in MODALITIES if modality in answered.logits)
    if text == ALL_ORDERS:
        first = tuple(m for m in own if m in held)
        longest_first = sorted(all_orders(held), key=lambda order: (order != first, -len(order)))
        return tuple(longest_first)
    order = parse_order(text)
    if missing := [modality for modality in order if modality not in held]:
        raise UsageError(f"order is {text!r}, but the logits file has none of"
                         f" {', '.join(missing)}; allowed: orders of {', '.join(held)}.",
                         hint="Leave them out, or write the logits of all networks.")
    return (order,)


# ---- results


def _rows(
    choice: Choice, answered: ClipLogits, config: WiseFitConfig
) -> tuple[WiseRow, ...]:
    weights, labels = choice.taken.weights, answered.labels
    logits = in_order(answered.logits, weights.order)
    combined = prefix_logits(logits, weights).argmax(axis=2)
    plain = logits.cumsum(axis=1).argmax(axis=2)
    alone = logits.argmax(axis=2)
    return tuple(
        WiseRow(str(position), vector, kkt=_kkt(vector, logits[:, : k + 1], answered, config),
                loss=wise_objective(np.array(vector), logits[:, : k + 1], labels, l2=0.0)[0],
                ensemble=accuracy_of(combined[:, k], labels),
                alone=accuracy_of(alone[:, k], labels),
                plain_sum=accuracy_of(plain[:, k], labels))
        for k, (position, vector) in enumerate(zip(positions(weights.order), weights.vectors,
                                                 strict=True))
    )


def _kkt(
    vector: tuple[float, ...], logits: Floats, answered: ClipLogits, config: WiseFitConfig
) -> float | None:
    method = config.fitting
    if not config.is_named or config.variant != "full" or not isinstance(method, Convex):
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
    pulled = (not config.is_named or not isinstance(method, Convex) or method.l1 > 0
              or method.l2 > 0)
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
    config: WiseFitConfig, rests: Rests, *, compared: Sequence[Modality]
) -> dict[str, Any]:
    """How the weights came about, as plain JSON values."""
    answered = rests.answered
    policy = {name: getattr(config, name)
              for name in ("accuracy_loss", "min_confidence", "safety_clips")}
    return {
        **conditions(("numpy", "scipy")),
        "take": config.settings.take,
        "method": config.method or "convex",
        "settings": asdict(config.fitting) if config.is_named else {"l2": list(STRENGTHS)},
        "variant": {"name": config.variant, **asdict(VARIANTS[config.variant])},
        "policy": policy if config.policy else None,
        "num_clips": len(answered),
        "clips_per_label": {name: int((answered.labels == i).sum())
                            for i, name in enumerate(answered.label_names)},
        "split": answered.split,
        "views": str(answered.views),
        "num_groups": len(set(answered.groups)),
        "num_folds": rests.num_folds,
        "classes_missing": list(rests.missing),
        "logits_file": ", ".join(path.name if config.logits == path else
                                 path.relative_to(config.logits).as_posix()
                                 for path in rests.files),
        "logits_sha256": rests.sha256,
        "weights_sha256": dict(answered.weights_sha256),
        "networks_compared": list(compared),
    }
