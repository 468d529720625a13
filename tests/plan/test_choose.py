"""The choice of a config for videos, a machine and hours: golden plans for given numbers, and what holds for all."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvnas.api import config_of
from pvnas.cli.command import parse
from pvnas.cli.overview import all_commands
from pvnas.deploy.latency import ProcessClock
from pvnas.errors import UserError
from pvnas.plan.choose import (
    AIM,
    LENIENT_SECONDS,
    MEASURED_FIRST,
    MOST_EPOCHS,
    SIZES,
    choose,
    clips_of_batch,
    forget_timings,
    repeating_command,
    sized_config,
    sizes_for,
)
from pvnas.plan.expect import enough_hours, expectations, reasons, spoken
from pvnas.plan.facts import Facts, Speed, Speeds, StepSize
from pvnas.preflight import check_budget
from pvnas.presets import laptop
from pvnas.search.latency import Timing
from pvnas.settings import check_config, differences, dump_config, get_field
from pvnas.space.genotype import Genotype


def facts(train, validation, test, classes, seconds=1.3, side=128, spent=20.0, cores=2, memory=4e9, **more):
    def dealt(n):
        return tuple(n // classes + (k < n % classes) for k in range(classes))

    frames = 25.0 * seconds * (train + validation + test)
    return Facts(
        classes=tuple(f"class {k}" for k in range(classes)),
        train_K=dealt(train),
        validation_K=dealt(validation),
        test_K=dealt(test),
        seconds=(seconds / 2, seconds, 2 * seconds),
        short_side=side,
        frames=frames,
        squares=1.33 * frames,
        memory=memory,
        cores=cores,
        spent=spent,
        **more,
    )


def speeds(videos, train=20.6, search=12.6, read=0.002):
    """Of so many clips/s at width 24 and 72 pixels."""
    config = sized_config(videos, SIZES[3], {})
    kept = videos.are_kept(config)
    rates = {"train": train, "search": search}
    sizes = {stage: StepSize.of(config, stage, kept=kept) for stage in rates}
    return Speeds({sizes[stage]: Speed(1 / rate - read, read) for stage, rate in rates.items()}, decode=0.001)


JHMDB = facts(561, 129, 238, 21)
SMALL = facts(72, 18, 72, 6)
TINY = facts(8, 0, 2, 2)
MANY = facts(8000, 1000, 1000, 50, seconds=10.0, side=240)
GPU = {"train": 2000.0, "search": 900.0, "read": 0.0002}


def sizes_and_steps(videos, hours, wishes=(), **rates):
    plan = choose(videos, speeds(videos, **rates), hours, dict(wishes))
    config = plan.config
    assert plan.seconds <= 3600 * hours * AIM
    return config.train.width, config.train.augment.crop, config.train.epochs, plan.train_steps, config.search.epochs


def test_an_hour_of_jhmdb_on_two_cores_has_the_sizes_of_laptop() -> None:
    first = sized_config(JHMDB, SIZES[MEASURED_FIRST], {})
    measured = {"search": Speed(0.0786, 0.0011), "train": Speed(0.0283, 0.00165)}  # of the two, quiet
    clips = {StepSize.of(first, stage, kept=True): speed for stage, speed in measured.items()}
    config = choose(JHMDB, Speeds(clips, decode=0.0003), 1, {}).config
    assert config.train.epochs == pytest.approx(laptop().train.epochs, rel=0.02)
    assert differences(laptop(), config).keys() <= {"train.epochs", "train.weights.schedule.warmup_epochs"}


def test_more_time_gives_steps_first_then_width_and_pixels() -> None:
    plans = [sizes_and_steps(JHMDB, hours) for hours in (0.1, 0.4, 1, 4)]
    assert [plan[:2] for plan in plans] == [(12, 56), (16, 72), (16, 72), (24, 96)]
    assert [plan[3] >= size.steps for plan, size in zip(plans, (SIZES[1], SIZES[2], SIZES[2], SIZES[4]), strict=True)]


def test_a_budget_of_time_leaves_out_sizes_that_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def timed(clock: ProcessClock, genotype: Genotype) -> Timing:
        asked.append(clock.use.network.width)
        return Timing(float(clock.use.network.width), 99.0, 30)

    monkeypatch.setattr("pvnas.plan.choose.timed", timed)
    forget_timings()
    assert sizes_and_steps(JHMDB, 4, {"budget.latency_ms": 20})[:2] == (16, 72)
    once = len(asked)
    assert sizes_and_steps(JHMDB, 4, {"budget.latency_ms": 20})[:2] == (16, 72)
    assert len(asked) == once
    forget_timings()
    with pytest.raises(UserError, match=r"keep budget\.latency_ms 2, .* takes 8 ms for a clip on the"):
        choose(JHMDB, speeds(JHMDB), 4, {"budget.latency_ms": 2})


def test_a_budget_leaves_out_the_sizes_of_which_no_network_keeps_it() -> None:
    assert sizes_and_steps(JHMDB, 4)[:2] == (24, 96)
    small = {"budget.macs": "60M"}
    width, crop, *_ = sizes_and_steps(JHMDB, 4, small)
    assert (width, crop) == (12, 56)
    check_budget(choose(JHMDB, speeds(JHMDB), 4, small).config, 21)
    assert sizes_and_steps(JHMDB, 4, {"budget.macs": "90G"})[:2] == (24, 96)
    with pytest.raises(UserError, match=r"within budget\.macs 1,000 \(the least there is: "):
        choose(JHMDB, speeds(JHMDB), 4, {"budget.macs": "1k"})


def test_few_videos_get_more_epochs_and_none_gets_them_without_end() -> None:
    assert sizes_and_steps(SMALL, 0.4)[:3] == (16, 72, 400)
    width, _, epochs, steps, _ = sizes_and_steps(TINY, 0.4)
    assert (epochs, steps) == (MOST_EPOCHS, 800)
    assert width > 24
    assert sizes_and_steps(JHMDB, 0.4)[2] == 77


def test_many_videos_read_from_the_disk_get_few_epochs() -> None:
    assert sizes_and_steps(MANY, 1, read=0.015) == (16, 72, 9, 9 * 562, 1)
    assert not MANY.are_kept(sized_config(MANY, SIZES[2], {}))


def test_a_gpu_takes_the_largest_network_that_the_pixels_are_worth() -> None:
    assert sizes_and_steps(JHMDB, 1, **GPU)[:3] == (32, 96, 400)
    wide = facts(8000, 1000, 1000, 50, seconds=10.0, side=240, cores=16, memory=8e10)
    assert sizes_and_steps(wide, 1, **GPU)[:2] == (64, 128)
    config = sized_config(wide, SIZES[-1], {})
    assert config.data.workers == 8  # processes read beside the network what memory cannot hold
    assert sized_config(facts(1683, 387, 714, 21, cores=16, memory=8e10), SIZES[-1], {}).data.cache_gib == 5


def test_what_a_person_sets_stays_and_the_rest_is_planned_around_it() -> None:
    slim = choose(JHMDB, speeds(JHMDB), 1, {"train.width": 32}).config
    assert (slim.train.width, slim.train.augment.crop) == (32, 72)
    assert slim.train.epochs < 77
    crop = choose(JHMDB, speeds(JHMDB), 1, {"train.augment.crop": 96}).config
    assert {crop.train.augment.crop, crop.search.augment.crop, crop.test.crop} == {96}
    assert crop.test.short_side == 107
    epochs = choose(JHMDB, speeds(JHMDB), 1, {"train.epochs": 20, "search.epochs": 3, "seed": 5}).config
    assert (epochs.train.epochs, epochs.search.epochs, epochs.seed) == (20, 3, 5)
    assert epochs.train.width > 24  # fewer epochs than there was time for
    with pytest.raises(UserError, match="crop"):
        sized_config(JHMDB, SIZES[0], {"train.augment.crop": 96, "train.augment.short_side_min": 80})


def test_first_crops_keep_the_proportion_of_laptop_in_steps_of_eight_pixels() -> None:
    first = {size.crop: sized_config(JHMDB, size, {}).train.augment.first_crop for size in SIZES}
    assert first == {48: 24, 56: 32, 72: 40, 96: 56, 112: 64, 128: 72}
    assert sized_config(JHMDB, SIZES[2], {"train.augment.first_crop": 0}).train.augment.first_crop == 0
    assert sized_config(JHMDB, SIZES[2], {}).search.augment.first_crop == 0


def test_clips_that_grow_leave_time_for_more_epochs() -> None:
    def epochs(**sizes: int) -> int:
        wishes = {f"train.augment.{name}": value for name, value in sizes.items()} | {"train.width": 16}
        return choose(JHMDB, speeds(JHMDB), 1.0, wishes).config.train.epochs

    # Of a clip's 27.3 ms 2 are for reading it; of the step, clips that grow take 0.773 and 0.642.
    full = epochs(first_crop=0, first_frames=0)
    assert epochs(first_crop=40, first_frames=0) / full == pytest.approx(27.3 / (2 + 0.773 * 25.3), rel=0.02)
    assert epochs(first_crop=40, first_frames=8) / full == pytest.approx(27.3 / (2 + 0.642 * 25.3), rel=0.02)


def test_too_little_time_is_refused_with_the_least_that_will_do() -> None:
    with pytest.raises(UserError, match=r"0.05 hours are too few: .* about --hours 0\.1\d ") as caught:
        choose(MANY, speeds(MANY, read=0.015), 0.05, {})
    assert "\n" not in str(caught.value)
    least = float(str(caught.value).split("--hours ")[1].split()[0])
    assert choose(MANY, speeds(MANY, read=0.015), least, {}).train_steps == 562
    # Two minutes more than asked for are said, and taken.
    plan = choose(TINY, speeds(TINY), 0.001, {})
    assert 3.6 < plan.seconds < LENIENT_SECONDS
    says = list(expectations(plan, TINY, speeds(TINY), 0.001, {}))
    assert says[0].startswith("expect: about ")
    assert "longer than 4 s" in says[0]


def test_no_memory_for_a_size_leaves_the_smaller_ones() -> None:
    known = speeds(JHMDB, **GPU)
    large = StepSize.of(sized_config(JHMDB, SIZES[5], {}), "train", kept=True)
    full = Speeds({**known.clips, large: Speed(float("inf"), 0.0)}, known.decode)
    assert choose(JHMDB, full, 1, {}).config.train.augment.crop == 96
    assert choose(JHMDB, full, 1, {}).config.train.width == 24
    nothing = Speeds(dict.fromkeys(known.clips, Speed(float("inf"), 0.0)))
    smallest = StepSize.of(sized_config(JHMDB, SIZES[0], {}), "train", kept=True)
    search = StepSize.of(sized_config(JHMDB, SIZES[0], {}), "search", kept=True)
    nothing = Speeds({smallest: Speed(float("inf"), 0.0), search: Speed(1.0, 0.0)})
    with pytest.raises(UserError, match="enough memory"):
        choose(JHMDB, nothing, 1, {})


def test_batches_leave_some_steps_in_an_epoch() -> None:
    assert [clips_of_batch(n) for n in (1, 16, 31, 32, 64, 10_000)] == [4, 4, 4, 8, 16, 16]


def test_long_videos_are_seen_in_windows_and_small_ones_not_enlarged() -> None:
    films = facts(50, 5, 5, 2, seconds=600.0)
    config = sized_config(films, SIZES[2], {})
    assert (config.clip.sampling, config.data.cache, films.are_kept(config)) == ("dense", "none", False)
    assert sizes_for(facts(50, 5, 5, 2, side=64)) == list(SIZES[:3])


def spoken_command(videos, plan):
    """The config of the command that repeats a plan, as the command line reads it."""
    words = shlex.split(repeating_command(plan.config, "/videos of mine"))
    assert words[:3] == ["pvnas", "run", "/videos of mine"]
    args = parse(all_commands()["run"], words[2:])
    assert args is not None
    return config_of(None, args.preset, None, {**args.overrides, "data.path": "."})


@settings(max_examples=20, derandomize=True)
@given(
    train=st.integers(2, 20_000),
    test=st.integers(0, 3000),
    classes=st.integers(2, 40),
    seconds=st.floats(0.2, 600),
    side=st.integers(16, 1080),
    hours=st.floats(0.01, 20),
    rate=st.floats(0.5, 5000),
    wishes=st.dictionaries(
        st.sampled_from(["train.width", "train.epochs", "search.epochs", "train.augment.crop", "test.temporal_views"]),
        st.integers(8, 90),
    ),
)
def test_a_plan_fits_keeps_wishes_and_is_repeated_by_its_command(
    train, test, classes, seconds, side, hours, rate, wishes
) -> None:
    videos = facts(max(train, classes), train // 5, test, classes, seconds, side)
    known = speeds(videos, rate, rate / 2, read=0.1 / rate)
    try:
        plan = choose(videos, known, hours, wishes)
    except UserError:
        return
    assert plan.seconds <= max(3600 * hours * AIM, 3600 * hours + LENIENT_SECONDS)
    check_config(plan.config)
    assert {name: get_field(plan.config, name) for name in wishes} == wishes
    assert plan.config.train.epochs <= MOST_EPOCHS
    again = spoken_command(videos, plan)
    again.data.path = plan.config.data.path
    assert dump_config(again) == dump_config(plan.config)
    lines = [*reasons(plan, videos, known, hours, wishes), *expectations(plan, videos, known, hours, wishes)]
    assert all(line and "\n" not in line for line in lines)


# ---- what is said


def said(videos, hours, wishes=(), **rates):
    known = speeds(videos, **rates)
    plan = choose(videos, known, hours, dict(wishes))
    return "\n".join(
        [*reasons(plan, videos, known, hours, dict(wishes)), *expectations(plan, videos, known, hours, dict(wishes))]
    )


def test_the_plan_says_what_was_chosen_and_why() -> None:
    text = said(JHMDB, 1, {"seed": 3})
    assert "plan for 60 min: 928 videos of 21 classes (561 for training, 129 for validation, 238 for the test)" in text
    assert "measured: 12.6 clips/s of the search (width 12, 72 pixels), 36.6 of the training (width 16, 72 pixels)" in (
        text
    )
    assert "training 207 epochs (8901 steps)" in text
    assert "seen as flow; in training they grow from 40 to 72 pixels and from 8 to 16 frames" in text
    assert "as you set: seed 3" in text
    full = said(JHMDB, 1, {"train.augment.first_crop": 0, "train.augment.first_frames": 0})
    assert "seen as flow\n" in full
    assert "119 right of 238 test videos will be 50 %, and may mean anything from 44 to 56 %" in text
    assert "expect: an early" not in text


def test_few_videos_and_little_time_are_said_before() -> None:
    text = said(TINY, 0.02, train=2.0)
    assert "next to nothing" in text
    assert "4 training videos a class" in text
    assert "guessing (50 %" in text
    assert "from 9 to 91 %" in text
    one = Facts(("a", "b", "c"), (1, 9, 9), (0, 0, 0), (0, 2, 2), (1.0, 1.0, 1.0), 128, 500.0, 600.0, memory=4e9)
    text = said(one, 0.1)
    assert "'a' has a single training video" in text
    assert "nothing about 'a': no test video" in text
    assert "no test videos" in said(facts(50, 5, 0, 2), 0.1)
    assert "an early result" in said(JHMDB, 0.05)


def test_hours_that_are_advised_are_enough() -> None:
    known = speeds(JHMDB)
    plan = choose(JHMDB, known, enough_hours(JHMDB, known, {}) * 1.02, {})
    assert plan.train_steps >= SIZES[2].steps


def test_times_are_said_as_people_say_them() -> None:
    assert [spoken(s) for s in (40, 720, 9000)] == ["40 s", "12 min", "2.5 h"]
