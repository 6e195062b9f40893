"""Sentences about a sweep: each appears if its fact is planted in the records, and only then."""

import math

import pytest

from noisegen import reports, storage, sweeps
from noisegen.reports import answers as answers_lib
from noisegen.reports import scaling_answers, sentences, series_answers
from noisegen.reports.steps import Steps
from noisegen.statistics import Interval

SIZES = (16, 32, 64, 128, 256, 512)
RATES = [2.0**k for k in range(-8, 4)]
WIGGLE = (-1.0, 0.4, 0.6, -0.5, 0.5)  # of the seeds, in standard deviations or so


def make_records(
    peak,
    exponent=1.0,
    *,
    seeds=5,
    spread=0.002,
    curvature=0.01,
    sizes=SIZES,
    rates=RATES,
    metric="test_accuracy",
    **fields,
):
    """Records on parabolas over log2 of the learning rate.

    Args:
      peak: From a batch size to the best mean, None to let every run diverge.
      exponent: Of the batch size, in the best learning rate.
      seeds: Number of seeds.
      spread: Size of the noise.
      curvature: Loss at a learning rate an octave from the best one.
      sizes, rates, metric, fields: Of the runs.
    """
    made = []
    for number, size in enumerate(sizes):
        for rate in rates:
            octaves = math.log2(rate) + 6.2 - exponent * math.log2(size / 16)
            octaves += 0.03 * (-1) ** number  # A law without scatter would have no interval.
            for seed in range(seeds):
                run = {"batch_size": size, "learning_rate": rate, "seed": seed} | fields
                status, score = "diverged", None
                if peak(size) is not None:
                    status = "finished"
                    score = peak(size) - curvature * octaves**2
                    score += spread * WIGGLE[(seed + number) % len(WIGGLE)]
                made.append(
                    storage.Record(
                        hparams=run,
                        status=status,
                        metrics={metric: score},
                        num_updates=10240 // size,
                    )
                )
    return made


def negated(records, metric):
    """The same records with a loss, the smaller the better."""
    return [
        storage.Record(
            hparams=each.hparams,
            status=each.status,
            metrics={metric: 1 - each.metrics["test_accuracy"]},
            num_updates=each.num_updates,
        )
        for each in records
    ]


def make_answers(records, seeds=5, *, also=None, **fields):
    """The answers by kind and series."""
    protocol = sweeps.Protocol(**{"best": seeds, "of": seeds, "max_extensions": 0} | fields)
    found = reports.make_answers(sweeps.select(records, protocol), protocol, **(also or {}))
    assert all(answer.text.endswith(".") and ".." not in answer.text for answer in found)
    assert all("nan" not in answer.text and "inf" not in answer.text.split() for answer in found)
    assert all(answer.rule for answer in found if answer.kind != "open")
    return found


def kinds(found, kind):
    return [answer for answer in found if answer.kind == kind]


def one(found, kind):
    [answer] = kinds(found, kind)
    return answer


def flat(size):
    return 0.9


def drop(size):
    return 0.9 if size <= 128 else 0.85


def test_a_planted_drop_is_where_the_batch_size_ends():
    answer = one(make_answers(make_records(drop)), "batch_size")
    assert answer.numbers["row"] == 128 and answer.numbers["next_row"] == 256
    low, high = answer.numbers["lost"]
    assert low <= 0.05 <= high
    assert "not measurably worse up to batch size 128: there it is at most" in answer.text
    assert "At 256 it is 5.0 points worse (95 %: " in answer.text
    assert answer.figure == "metric"


def test_without_a_drop_the_largest_batch_size_is_as_good():
    answer = one(make_answers(make_records(flat)), "batch_size")
    assert answer.numbers["row"] == 512 and "next_row" not in answer.numbers
    assert "up to batch size 512, the largest one compared: there it is at most" in answer.text
    assert 0 < answer.numbers["at_most"] < 0.01


def test_an_interval_that_excludes_little_is_said_to_do_so():
    wide = make_records(flat, seeds=3, spread=0.004, rates=RATES[::2])
    answer = one(make_answers(wide, 3), "batch_size")
    assert "but 3 seeds do not exclude that it is" in answer.text and "worse there" in answer.text
    # Three seeds of a wide spread do not limit an accuracy at all.
    wider = make_records(flat, seeds=3, spread=0.4, curvature=9.0)
    answer = one(make_answers(wider, 3), "batch_size")
    assert "but 3 seeds do not limit how much worse it is there" in answer.text
    assert kinds(make_answers(wide, 3), "updates") == []


def test_the_updates_that_a_large_batch_saves_are_counted():
    answer = one(make_answers(make_records(drop)), "updates")
    assert answer.numbers == {"updates": (640, 80)}
    assert answer.text == ("Batch size 128 makes 80 updates where 16 makes 640: 8.0 times fewer.")
    # Equal numbers of updates save none.
    equal = [
        storage.Record(
            hparams=each.hparams, status=each.status, metrics=each.metrics, num_updates=100
        )
        for each in make_records(drop)
    ]
    assert kinds(make_answers(equal), "updates") == []
    assert len(kinds(make_answers(equal), "batch_size")) == 1


@pytest.mark.parametrize(
    "exponent, ending",
    [
        (1.0, "which agrees with the linear rule (1)."),
        (0.5, "which agrees with the square-root rule (1/2)."),
        (0.0, "which agrees with a constant (0)."),
        (
            0.75,
            "which excludes the linear rule (1), the square-root rule (1/2) and a constant (0).",
        ),
    ],
)
def test_the_rule_that_the_learning_rate_follows_is_named(exponent, ending):
    answer = one(make_answers(make_records(flat, exponent)), "learning_rate")
    value, low, high = answer.numbers["exponent"]
    assert low <= exponent <= high and value == pytest.approx(exponent, abs=0.05)
    assert answer.text.startswith("From batch size 16 to 512 the best learning rate scales as")
    assert answer.text.endswith(ending) and answer.figure == "tuned"


def test_rules_that_the_records_do_not_tell_apart_are_all_named():
    exponent = Interval(0.7, 0.4, 1.1, 0.95)
    assert scaling_answers._rules(exponent) == (
        "does not tell the linear rule (1) and the square-root rule (1/2) apart"
    )


def test_two_batch_sizes_have_no_law():
    found = make_answers(make_records(flat, sizes=(16, 32)))
    assert kinds(found, "learning_rate") == [] and len(kinds(found, "batch_size")) == 1


def test_rows_that_are_no_batch_sizes_have_no_sentence_about_them():
    found = make_answers(make_records(drop), scaling_rule=False)
    assert {answer.kind for answer in found} == {"open"}


def two_series(effect, exponent=1.0, *, seeds=5, labels=("SGD", "noise"), spread=0.002, **changes):
    """Records of two series, of which the second one is better by `effect` of a batch size."""
    plain, noisy = labels
    records = make_records(drop, exponent, kind=plain, seeds=seeds, spread=spread, **changes)
    return records + [
        storage.Record(
            hparams=each.hparams | {"kind": noisy},
            status=each.status,
            metrics={
                "test_accuracy": each.metrics["test_accuracy"]
                + effect(each.hparams["batch_size"])
                # The noise of the second series is another one.
                + spread * WIGGLE[(2 * each.hparams["seed"]) % len(WIGGLE)]
            },
            num_updates=each.num_updates,
        )
        for each in records
    ]


SERIES = {"series": lambda run: run["kind"], "labels": ("SGD", "noise")}


def test_a_series_is_better_and_worse_where_that_is_planted():
    effects = {256: 0.03, 512: 0.04, 16: -0.05}
    found = make_answers(two_series(lambda size: effects.get(size, 0.0)), **SERIES)
    answer = one(found, "series")
    assert answer.series == "noise" and answer.numbers["differences"].keys() == effects.keys()
    for row, (low, high) in answer.numbers["differences"].items():
        assert low <= effects[row] <= high and low * high > 0
    assert answer.text.startswith("noise: better than SGD at batch sizes 256 (by ")
    assert ", and worse than SGD at batch size 16 (by " in answer.text
    assert answer.text.endswith("Elsewhere (3 batch sizes) no difference is seen.")


def test_one_row_without_a_difference_is_one_batch_size():
    effects = dict.fromkeys(SIZES[1:], 0.03)
    found = make_answers(two_series(lambda size: effects.get(size, 0.0)), **SERIES)
    assert one(found, "series").text.endswith("Elsewhere (1 batch size) no difference is seen.")
    everywhere = one(make_answers(two_series(lambda size: 0.03), **SERIES), "series")
    assert "lsewhere" not in everywhere.text and everywhere.text.endswith("points).")


def test_series_that_are_not_told_apart_differ_by_a_stated_amount_at_most():
    found = make_answers(two_series(lambda size: 0.0, sizes=(16, 32)), **SERIES)
    answer = one(found, "series")
    assert answer.numbers["differences"] == {} and 0 < answer.numbers["at_most"] < 0.02
    assert answer.text.startswith(
        "noise: no difference from SGD is seen at batch sizes 16 and 32: it is at most "
    )


def test_each_series_is_named_and_shares_the_level_with_the_others():
    found = make_answers(two_series(lambda size: 0.0), **SERIES)
    texts = [answer.text for answer in kinds(found, "batch_size")]
    assert [text.split(":")[0] for text in texts] == ["SGD", "noise"]
    assert all(": the test accuracy is not" in text for text in texts)
    alone = one(make_answers(make_records(drop)), "batch_size")
    [with_other, _] = kinds(found, "batch_size")
    assert with_other.numbers["at_most"] > alone.numbers["at_most"]
    assert "all series" in with_other.rule and "all series" not in alone.rule


def test_a_better_loss_is_a_smaller_one():
    loss = {"metric": "test_loss", "mode": "min"}
    answer = one(make_answers(negated(make_records(drop), "test_loss"), **loss), "batch_size")
    assert answer.numbers["row"] == 128 and "At 256 it is 0.050 worse" in answer.text
    assert "points" not in answer.text and "The test loss" in answer.text
    records = negated(two_series(lambda size: 0.03), "test_loss")
    answer = one(make_answers(records, **SERIES, **loss), "series")
    assert "noise: better than SGD at batch sizes 16 (by 0.0" in answer.text
    assert all(high < 0 for _, high in answer.numbers["differences"].values())


def test_a_metric_has_its_unit():
    records = [
        storage.Record(
            hparams=each.hparams,
            status=each.status,
            metrics={"perplexity": 100 * each.metrics["test_loss"]},
            num_updates=each.num_updates,
        )
        for each in negated(make_records(drop), "test_loss")
    ]
    metric = sweeps.Metric("perplexity", unit="nats")
    answer = one(make_answers(records, metric=metric, mode="min"), "batch_size")
    assert "At 256 it is 5.0 nats worse" in answer.text


@pytest.mark.parametrize(
    "name, several",
    [("batch_size", "batch sizes"), ("num_epochs", "numbers of epochs"), ("loss", "losses")],
)
def test_names_of_rows_have_a_plural(name, several):
    assert sentences.named(name, ["4", "8"]) == f"{several} 4 and 8"


def test_a_percentage_cannot_change_by_more_than_all_of_it():
    assert sentences.with_unit(sweeps.Metric("a", unit="%"), 1.7) == "100 points"
    assert sentences.with_unit(sweeps.Metric("a"), 1.7) == "1.7"


@pytest.mark.parametrize(
    "low, high, text",
    [
        (0.012, 0.034, "1.2 to 3.4 points"),
        (0.0340001, 0.034, "3.4 points"),
        (-0.1, 0.2, "up to 20 points"),
        (0.0, 0.002, "up to 0.20 points"),
    ],
)
def test_an_interval_of_sizes_begins_at_zero(low, high, text):
    assert sentences.range_with_unit(sweeps.Metric("a", unit="%"), low, high) == text


def test_a_difference_that_only_the_test_shows_is_stated_with_its_sign():
    found = Interval(0.2, -0.1, 0.5, 0.95)
    assert series_answers._stated(found) == (0.0, 0.5)
    assert series_answers._stated(Interval(-0.2, -0.5, 0.1, 0.95)) == (-0.5, 0.0)


def test_no_records_have_no_answers():
    assert make_answers([]) == []


def test_where_every_run_diverged_smaller_learning_rates_are_asked_for():
    [answer] = make_answers(make_records(lambda size: None, sizes=(16, 32)))
    assert answer.kind == "open"
    assert answer.text == (
        "Every run diverged at batch sizes 16 and 32. Try a smaller learning rate there."
    )
    some = make_answers(make_records(lambda size: 0.9 if size < 512 else None))
    assert one(some, "batch_size").numbers["row"] == 256
    assert "Every run diverged at batch size 512. Try" in " ".join(a.text for a in some)


@pytest.mark.parametrize("seeds, words", [(1, "With 1 seed no"), (2, "With 2 seeds no")])
def test_one_or_two_seeds_tell_nothing_from_chance(seeds, words):
    command = "train --seeds={}".format
    found = make_answers(make_records(drop, seeds=seeds), seeds, also={"more_seeds": command})
    assert {answer.kind for answer in found} <= {"learning_rate", "open"}
    answer = one(found, "open")
    assert answer.text.startswith(words) and answer.command == "train --seeds=3"


def test_two_seeds_tell_no_series_from_another():
    found = make_answers(two_series(lambda size: 0.3, seeds=2), 2, **SERIES)
    assert {answer.kind for answer in found} <= {"learning_rate", "open"}
    assert kinds(make_answers(two_series(lambda size: 0.3, seeds=3), 3, **SERIES), "series")


def test_equal_scores_of_all_seeds_show_no_noise():
    found = make_answers(make_records(drop, spread=0.0))
    assert {answer.kind for answer in found} <= {"learning_rate", "open"}
    assert "no noise" in one(found, "open").text


def test_an_optimum_at_the_edge_is_left_out_and_extended():
    found = make_answers(make_records(flat, exponent=2.0, sizes=(16, 32, 64, 128, 1024)))
    assert one(found, "batch_size").numbers["row"] == 128
    [edge, _] = kinds(found, "open")
    assert edge.text == (
        "The best learning rate may lie beyond the values tried at batch size 1024 (left out of the"
        " sentences on batch size and learning rate). Extend the grid there."
    )
    others = make_answers(make_records(flat, 2.0, sizes=(64, 1024)), scaling_rule=False)
    assert "left out" not in kinds(others, "open")[0].text


def test_an_optimum_at_the_edge_is_not_left_out_of_differences_and_not_said_to_be():
    sizes = (16, 32, 64, 128, 1024)
    found = make_answers(two_series(lambda size: 0.05, sizes=sizes, exponent=2.0), **SERIES)
    assert 1024 in one(found, "series").numbers["differences"]
    [edge, _] = kinds(found, "open")
    assert "tried at batch size 1024 (left out of the sentences on batch size and" in edge.text


def test_a_rule_says_that_nothing_was_tuned():
    single = {"rates": [2.0**-6], "curvature": 0.0}
    found = make_answers(make_records(drop, **single))
    words = "Nothing was tuned: each batch size has a single learning rate."
    assert words in one(found, "batch_size").rule
    assert "choose" not in one(found, "batch_size").rule
    found = make_answers(two_series(lambda size: 0.05, **single), **SERIES)
    assert one(found, "series").rule.startswith(words)
    assert "other seeds choose" in one(make_answers(make_records(drop)), "batch_size").rule


@pytest.mark.parametrize("missing, words", [(1, "1 run has no"), (1200, "1,200 runs have no")])
def test_runs_without_a_record_are_counted(missing, words):
    found = make_answers(make_records(drop), also={"missing": missing})
    assert kinds(found, "open")[0].text.startswith(words)


@pytest.mark.parametrize("missing, words", [(1, "the only run has no"), (9, "none of the 9 runs")])
def test_before_the_first_record_there_is_nothing_but_the_way_to_it(missing, words):
    [answer] = make_answers([], also={"missing": missing})
    assert words in answer.text and answer.text.endswith("Call sweep.run() first.")
    [answer] = make_answers([], also={"missing": missing, "command": "noisegen sweep it.py"})
    assert "sweep.run()" not in answer.text and answer.command == "noisegen sweep it.py"


def test_no_other_runs_are_asked_for_while_planned_ones_are_missing():
    """An optimum at the edge, a row that diverged, and few seeds."""
    edge = make_records(lambda size: 0.9 if size < 1024 else None, 2.0, sizes=(16, 512, 1024))
    single = make_records(drop, seeds=1)
    also = {"more_seeds": "train --seeds={}".format, "command": "train"}
    requests = ("Extend the grid", "Try a smaller", "to see half", "Train at least")

    def asked(found):
        return [words for words in requests for answer in found if words in answer.text]

    for records, seeds in ((edge, 5), (single, 1)):
        whole = make_answers(records, seeds, also=also)
        part = make_answers(records, seeds, also=also | {"missing": 3})
        assert asked(whole) and [a.command for a in whole if a.command][0].startswith("train --se")
        assert asked(part) == [] and [a.command for a in part if a.command] == ["train"]
        assert len(part) == len(whole) + 1
    assert len(asked(make_answers(make_records(drop, seeds=1), 1))) == 1


def test_the_best_batch_size_is_not_said_to_be_worse_than_the_best():
    def rises(size):
        return {16: 0.80, 32: 0.85, 64: 0.90, 128: 0.95}.get(size, 0.7)

    answer = one(make_answers(make_records(rises)), "batch_size")
    assert answer.numbers["row"] == 128 and answer.numbers["at_most"] == 0
    assert "up to batch size 128: there it is better than at all others" in answer.text
    assert "at most" not in answer.text and "At 256 it is 25 points worse" in answer.text
    largest = one(make_answers(make_records(rises, sizes=(16, 32, 64, 128))), "batch_size")
    assert "128, the largest one compared: there it is better than at all" in largest.text


def test_the_smallest_batch_size_has_no_smaller_one_to_be_compared_with():
    answer = one(make_answers(make_records(lambda size: 1 - 0.05 * math.log2(size))), "batch_size")
    assert answer.text.startswith(
        "The test accuracy is measurably worse at every batch size above 16, the smallest one"
        " compared. At 32 it is 5.0 points worse"
    )
    assert "at most" not in answer.text and answer.numbers["next_row"] == 32


UP_TO = ' "Up to" a number: the interval contains 0'


def test_an_interval_from_0_beside_a_difference_is_explained_by_the_rule():
    # Tests have the full level in turn, and intervals a share of it.
    single = {"rates": [2.0**-6], "curvature": 0.0}
    lower = make_records(lambda size: 0.9 if size < 512 else 0.897, **single)
    answer = one(make_answers(lower), "batch_size")
    assert "At 512 it is 0.30 points worse (95 %: up to " in answer.text and UP_TO in answer.rule
    effects = {16: -0.05, 32: -0.05}
    records = two_series(lambda size: effects.get(size, -0.0025), sizes=(16, 32, 64), **single)
    answer = one(make_answers(records, **SERIES), "series")
    assert "and 64 (by up to " in answer.text and UP_TO in answer.rule
    plain = one(make_answers(make_records(drop)), "batch_size")
    assert "up to " not in plain.text.partition("worse (95 %")[2] and UP_TO not in plain.rule


def test_every_kind_of_sentence_has_a_rule():
    effects = {16: 0.03}
    records = two_series(lambda size: effects.get(size, 0.0))
    found = make_answers(records, also={"steps": make_steps(64, series="noise")}, **SERIES)
    expected = {"batch_size", "updates", "learning_rate", "target", "series", "open"}
    assert {answer.kind for answer in found} == expected
    text = answers_lib.to_text(found).splitlines()
    for answer in found:
        [line] = [line for line in text if line.startswith(f"- {answer.text}")]
        assert line.endswith("]") == bool(answer.rule)


def test_the_seeds_that_a_smaller_difference_takes_are_asked_for():
    also = {"more_seeds": lambda number: f"noisegen sweep --seeds={number}"}
    answer = kinds(make_answers(make_records(drop), also=also), "open")[-1]
    number = int(answer.command.split("=")[1])
    assert answer.text.startswith("With 5 seeds a difference of 0.") and number > 5
    assert f"seen four times out of five; to see half of it takes {number} seeds" in answer.text
    assert answer.rule == (
        "A t test at 5 %, with the median over batch sizes of the standard deviation over seeds."
    )
    assert kinds(make_answers(make_records(drop)), "open")[-1].command == ""


def test_a_race_may_add_runs_to_those_without_a_record():
    def text(search):
        found = make_answers(make_records(lambda size: 0.0), also={"missing": 2}, search=search)
        return kinds(found, "open")[0].text

    assert text("grid") == "2 runs have no record yet, so every sentence may still change."
    assert "no record yet and the race may add others, so every" in text("race")


def test_the_error_of_a_small_test_set_is_stated():
    def sentences(records, examples, **fields):
        found = make_answers(records, also={"num_test_examples": examples}, **fields)
        return [answer.text for answer in kinds(found, "open") if "test set" in answer.text]

    [text] = sentences(make_records(drop), 100)
    assert "Another test set of 100 examples would move the test accuracy by 3.0 points" in text
    assert sentences(make_records(drop), 1_000_000) == []
    assert sentences(make_records(drop), None) == []
    losses = negated(make_records(drop), "test_loss")
    assert sentences(losses, 100, metric="test_loss", mode="min") == []


def make_steps(useful, sizes=SIZES, series="", target=0.8, noise=0.02, seeds=5):
    """Steps to a target that fall in proportion to the batch size up to a useful one."""
    rows = []
    for number, size in enumerate(sizes):
        crossings = tuple(
            sweeps.Crossing(
                updates=updates,
                examples=updates * size,
                record=storage.Record(hparams={}, status="finished", metrics={}),
            )
            for seed in range(seeds)
            for updates in [
                2**14 / min(size, useful) * (1 + noise * WIGGLE[(seed + number) % len(WIGGLE)])
            ]
        )
        mean = sum(each.updates for each in crossings) / seeds
        point = sweeps.TargetPoint(values={}, crossings=crossings, tried=seeds)
        rows.append(
            sweeps.RowTarget(
                series=series,
                row=size,
                target=target,
                updates=Interval(mean, math.nan, math.nan, 0.95),
                examples=Interval(mean * size, math.nan, math.nan, 0.95),
                point=point,
                points=(point,),
                n=seeds,
            )
        )
    return Steps(rows, sweeps.scaling_regions(rows), sweeps.critical_batch_sizes(rows))


def test_the_updates_to_a_target_end_at_the_planted_batch_size():
    found = make_answers(make_records(drop), also={"steps": make_steps(64)})
    answer = one(found, "target")
    assert answer.numbers["largest_useful"] == 64 and answer.figure == "steps"
    assert answer.text.startswith("To reach test accuracy 80 %, batch size 64 takes 256 updates")
    assert "where 16 takes 1,02" in answer.text
    assert "larger ones do not measurably save more" in answer.text
    critical, low, high = answer.numbers["critical"]
    assert low < critical < high and f"critical batch size is {critical:,.0f}" in answer.text


def test_the_largest_batch_size_may_still_save_updates():
    found = make_answers(make_records(drop), also={"steps": make_steps(512)})
    assert "the largest one still saves updates" in one(found, "target").text
    assert "critical batch size" not in one(found, "target").text  # it is infinite


def test_no_larger_batch_may_save_updates():
    answer = one(make_answers(make_records(drop), also={"steps": make_steps(16)}), "target")
    assert answer.text.startswith("No batch larger than 16 measurably saves updates")


def test_two_seeds_show_no_updates_that_a_larger_batch_saves():
    found = make_answers(make_records(drop), also={"steps": make_steps(64, seeds=2)})
    assert kinds(found, "target") == []


def test_a_target_of_another_series_is_not_taken_for_this_one():
    records, steps = two_series(lambda size: 0.0), make_steps(64, series="noise")
    answer = one(make_answers(records, also={"steps": steps}, **SERIES), "target")
    assert answer.series == "noise" and answer.text.startswith("noise: to reach")


def test_text_has_a_footnote_for_each_rule_and_the_commands_below_their_sentence():
    def answer(text, rule="", command=""):
        return reports.Answer(kind="open", text=text, rule=rule, command=command)

    found = [
        answer("One.", "The first rule."),
        answer("Two.", "The second rule."),
        answer("Three.", "The first rule."),
        answer("Four.", command="train more"),
    ]
    assert answers_lib.to_text(found).splitlines() == [
        "- One. [1]",
        "- Two. [2]",
        "- Three. [1]",
        "- Four.",
        "    train more",
        "[1] The first rule.",
        "[2] The second rule.",
    ]
    assert answers_lib.to_text([]) == ""
