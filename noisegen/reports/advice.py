"""Writes the predictions of `sweeps.advise` in sentences."""

import math
from collections.abc import Sequence

from noisegen.reports.formatting import display_name, format_number
from noisegen.reports.sentences import Answer, about
from noisegen.sweeps.advice import LEAST_GAIN, Advice, SeriesAdvice
from noisegen.sweeps.largest_batch import DEVIATIONS

_DISAGREE = 16  # A sentence warns if batch size and gradient noise scale differ by this factor.
_LOSS = "A loss is more than two standard deviations of a run."
_NO_MORE = (
    "More minutes do not help, as advice trains no longer horizon: only the full sweep can tell"
)


def advice_answers(advice: Advice, command: str = "") -> list[Answer]:
    """Returns what short runs predict for a sweep, and what they cannot tell.

    Args:
      advice: The predictions.
      command: The command that trains the full sweep, or ''.
    """
    answers = []
    for each in advice.series:
        answers += _batch_size(each, advice)
        answers += _measured(each, advice)
    return [*answers, _cost(advice, command)]


def _batch_size(each: SeriesAdvice, advice: Advice) -> list[Answer]:
    """Says how large the batch can be, at which learning rate, and what it saves."""
    nothing = _no_prediction(each, advice)
    if nothing is not None:
        return [nothing]
    if "no_loss" in each.prediction.flags:
        return _no_loss(each, advice)
    return [
        _predicted(each, advice),
        *_learning_rate(each, advice, each.prediction.batch_size.value),
        *_updates(each, advice),
    ]


def _no_prediction(each, advice) -> Answer | None:
    """Says why nothing is predicted, and what would help; None if something is."""
    flags, size = each.prediction.flags, each.prediction.batch_size
    horizons = _fractions(advice.fractions)
    if "few_rows" in flags:
        text = (
            f"Too few batch sizes at {horizons} of the horizon to say how large the batch can be:"
            " it takes three with surviving runs of two seeds. Give smaller values of the"
            f" {display_name(advice.rate)}"
        )
        return _answer("open", each, text)
    if "uncertain" in flags:
        remedy = _NO_MORE if advice.is_largest else "Give more minutes"
        text = (
            f"No prediction: at {horizons} of the horizon the runs scatter so much that the largest"
            f" batch size without loss may lie anywhere from {_round(size.low)} to"
            f" {_round(size.high)} ({100 * size.level:g} %). {remedy}"
        )
        return _answer("open", each, text, rule=_measured_at(horizons))
    if "untrained" in flags:
        text = (
            f"No prediction: at {horizons} of the horizon the runs hardly learn. {_longer(advice)}"
        )
        rule = (
            f"Runs learn if the smallest batch size does better than no training by"
            f" {LEAST_GAIN * DEVIATIONS:g} standard deviations of a run."
        )
        return _answer("open", each, text, rule=rule)
    if "all_lost" in flags:
        text = (
            f"No prediction: at {horizons} of the horizon the {display_name(advice.metric)} is lost"
            f" from batch size {format_number(_smallest_tried(each))} on. Give smaller batch"
            " sizes"
        )
        if not advice.is_longest:
            text += ", or more minutes for a longer horizon"
        return _answer("open", each, text, rule=_measured_at(horizons))
    return None


def _no_loss(each, advice) -> list[Answer]:
    """Says that even the largest batch size tried loses nothing, and what would show more."""
    horizons, largest = _fractions(advice.fractions), _largest_tried(each)
    text = (
        f"No loss up to batch size {format_number(round(each.prediction.batch_size.low))}, the"
        f" largest tried, at {horizons} of the horizon: where the loss begins cannot be predicted. "
    )
    if each.largest_planned > largest:
        text += (
            f"The larger ones, up to {format_number(each.largest_planned)}, make too few updates"
            f" there, or diverge. {_longer(advice)}"
        )
    else:
        text += "Give larger batch sizes"
        if advice.fixed_updates:
            text += (
                ", but at a fixed number of updates they train on more examples and save no updates"
            )
    answer = _answer("batch_size", each, text, rule=_measured_at(horizons))
    return [answer, *_learning_rate(each, advice, largest)]


def _predicted(each, advice) -> Answer:
    """Says which batch size is predicted to be the largest without loss."""
    size, largest = each.prediction.batch_size, _largest_tried(each)
    text = (
        f"Predicted largest batch size without loss of {display_name(advice.metric)}:"
        f" {_round(size.value)} ({100 * size.level:g} %: {_round(size.low)} to"
        f" {_round(size.high)})"
    )
    if size.value > largest:
        text += f", beyond the largest tried, {format_number(largest)}"
    rule = (
        f"Measured at {_fractions(advice.fractions)} of the horizon, and extrapolated as horizon to"
        f" the power {each.prediction.growth:.2f}. {_LOSS}"
    )
    numbers = {"batch_size": (size.value, size.low, size.high)}
    return _answer("batch_size", each, text, rule=rule, numbers=numbers)


def _updates(each, advice) -> list[Answer]:
    """Says how many updates the predicted batch size saves."""
    before, after = each.updates
    if advice.fixed_updates or before <= 1.5 * after:
        return []
    text = (
        f"There the full runs make {after:,} updates in place of {before:,} at batch size"
        f" {format_number(each.smallest[0])}: {before / after:.1f} times fewer"
    )
    rule = "Calculated from the horizon and the predicted batch size."
    return [_answer("updates", each, text, rule=rule, numbers={"updates": each.updates})]


def _learning_rate(each, advice, size) -> list[Answer]:
    """Says which learning rate goes with a batch size."""
    rate = each.learning_rate
    if math.isnan(rate.value):
        return []
    # A batch size that was tried is whole, and shown as it is.
    shown = format_number(size) if float(size).is_integer() else _round(size)
    text = (
        f"Predicted {display_name(advice.rate)} at batch size {shown}: {rate.value:.2g}"
        f" ({rate.low:.2g} to {rate.high:.2g})"
    )
    rule = "The error bars of the short runs, and a step of the grid on either side."
    numbers = {"learning_rate": (rate.value, rate.low, rate.high)}
    return [_answer("learning_rate", each, text, rule=rule, numbers=numbers)]


def _measured(each, advice) -> list[Answer]:
    """Says what else was measured."""
    answers = []
    if not math.isnan(each.stable_effective_rate):
        bound = "at least " if each.stable_is_bound else ""
        text = (
            f"Largest stable effective learning rate at batch size"
            f" {format_number(each.stable_row)}, in the shorter runs: {bound}"
            f"{each.stable_effective_rate:.2g}"
        )
        rule = (
            "A run is stable if it ends with a smaller training loss than one that learns nothing."
        )
        numbers = {"stable_effective_rate": each.stable_effective_rate}
        answers.append(_answer("measured", each, text, rule=rule, numbers=numbers))
    if not math.isnan(each.noise_scale):
        text = f"Gradient noise scale late in the longer runs: {_round(each.noise_scale)}"
        size = each.prediction.batch_size.value
        ratio = size / each.noise_scale
        if math.isfinite(size) and not 1 / _DISAGREE < ratio < _DISAGREE:
            text += f", {_ratio(ratio)} the predicted batch size: trust the prediction less"
        rule = (
            "The simple noise scale of McCandlish et al. (2018), averaged over the second half of a"
            " run."
        )
        numbers = {"noise_scale": each.noise_scale}
        answers.append(_answer("measured", each, text, rule=rule, numbers=numbers))
    return answers


def _cost(advice, command) -> Answer:
    """Says what the full sweep takes."""
    fewest, expected = advice.race_minutes
    text = (
        f"This advice took {_minutes(advice.minutes)} of training with {advice.num_seeds} seeds."
        f" The full sweep takes about {_minutes(fewest)} to {_minutes(expected)} as a race, and"
        f" {_minutes(advice.grid_minutes)} as a grid."
    )
    return Answer(
        kind="cost",
        text=text,
        rule=(
            "Estimated from the speed of the short runs: the fewest runs of a race, about as many"
            " as a race takes, and all runs of the grid, without extensions."
        ),
        command=command,
        numbers={"race_minutes": advice.race_minutes, "grid_minutes": advice.grid_minutes},
    )


def _answer(kind, each, text, rule="", numbers=None) -> Answer:
    text = about(each.series, text)
    return Answer(kind=kind, series=each.series, text=text, rule=rule, numbers=numbers or {})


def _measured_at(horizons: str) -> str:
    return f"Measured at {horizons} of the horizon. {_LOSS}"


def _longer(advice) -> str:
    """Asks for a longer horizon, or says that there is none."""
    return _NO_MORE if advice.is_longest else "Give more minutes for a longer horizon"


def _largest_tried(each) -> float:
    return max(found.rows[1] for found in each.measured.values())


def _smallest_tried(each) -> float:
    return min(found.rows[0] for found in each.measured.values())


def _fractions(fractions: Sequence[float]) -> str:
    """Writes fractions of the horizon: '1/8 and 1/4'."""
    return " and ".join(f"1/{round(1 / each)}" for each in fractions)


def _round(value: float) -> str:
    """Writes a batch size with two digits."""
    digits = max(0, math.floor(math.log10(value)) - 1) if value > 0 else 0
    return f"{round(value, -digits):,.0f}"


def _ratio(ratio: float) -> str:
    """Says how the gradient noise scale compares with the predicted batch size."""
    return f"1/{_round(ratio)} of" if ratio > 1 else f"{_round(1 / ratio)} times"


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.1f} min" if minutes < 10 else f"{minutes:.0f} min"
