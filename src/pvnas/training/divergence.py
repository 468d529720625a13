"""When a training has diverged, and what to say of it: the search and the training both ask here."""

import math

from torch import Tensor

from pvnas.config import WeightOptimizerConfig
from pvnas.runtime.distributed import LOSS_OF_PROCESS
from pvnas.runtime.gpu import FiniteCheck
from pvnas.runtime.loop import DivergedInError

DIVERGED_NATS = 1000.0
"""How far above guessing the mean loss of a batch means divergence.

A clip's cross-entropy is at most ln(K) above the distance of the right class's score from the highest one: at this loss
the scores lie a thousand nats apart, where exp(-745) is nothing in float64 already. The way back is as long: the
gradient of a score is at most 1. Presets stay below 3; rates that first came above 1,000 in trials with `tiny` (a
thousand times the preset's and more) never came down to guessing again, rates below it sometimes did.
"""
HIGH_LOSS = 3.0
"""How many times the loss of guessing an epoch's mean may be before a line says so; a rate that falls may mend that."""


def require_loss(finite: FiniteCheck, measures: dict[str, Tensor]) -> None:
    """Ask of a step's sums (training.step.class_sums) that its loss is a number, and not that of a diverged network."""
    guess, mean = guessing(len(measures["class_loss"])), measures["loss"] / measures["clips"]
    losses = measures.pop(LOSS_OF_PROCESS, None)
    try:
        finite.require_below("the loss", mean, guess + DIVERGED_NATS, f"guessing gives {guess:.2f}")
    except FloatingPointError as error:
        if losses is not None:
            raise DivergedInError(str(error), int(losses.nan_to_num(math.inf, math.inf, math.inf).argmax())) from None
        raise


def require_validation(measures: dict[str, float], epoch: int) -> None:
    """Raise FloatingPointError where the loss of a validation is not a number.

    A high one is none: running statistics may be far off in the first epochs.
    """
    if not math.isfinite(measures.get("val_loss", 0.0)):
        raise FloatingPointError(f"the validation loss is not a number after epoch {epoch}")


def guessing(classes: int) -> float:
    """Return the cross-entropy of giving every class the same score, in nats."""
    return math.log(max(classes, 2))


def advice(stage: str, weights: WeightOptimizerConfig) -> str:
    """Return what helps against divergence, with the options by name and their present values."""
    lr, norm = f"--{stage}.weights.lr", f"--{stage}.weights.clip_gradient"
    limited = weights.clip_gradient > 0
    limit = f"a smaller {norm} (now {weights.clip_gradient:g})" if limited else f"{norm} 5 (now 0: no limit)"
    return f"start anew, in another --dir, with a lower {lr} (now {weights.lr:g}) or with {limit}"


def high_loss_warning(stage: str, epoch: int, sums: dict[str, Tensor], advice: str) -> str | None:
    """Return one line where the mean loss of an epoch is far above that of guessing, else None."""
    loss, guess = float(sums["loss"] / sums["clips"]), guessing(len(sums["class_loss"]))
    if loss <= HIGH_LOSS * guess:
        return None
    high = f"the loss is {loss:.3g}, where guessing gives {guess:.2f}"
    return f"{stage} epoch {epoch}: {high}; unless it falls soon, {advice}"
