"""Timelines: windows are predicted as segments are, joined by hysteresis, and told in every form."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from pvnas import cli
from pvnas.data.catalog import Video
from pvnas.data.check import Limits
from pvnas.data.clips.windows import Pace
from pvnas.deploy.model import load_model
from pvnas.deploy.predictions import predict_each
from pvnas.deploy.timeline import (
    PICTURES,
    Glimpses,
    Joining,
    Seen,
    Segment,
    joined,
    pace_of,
    stretches,
    timeline_of_each,
    timelines,
)
from pvnas.errors import UserError

CLASSES = ("run", "sit")


def seen(*scores: float, stride: float = 1.0, window: float = 1.0) -> list[Seen]:
    """Windows with these scores of `run`."""
    pairs = enumerate(scores)
    return [Seen(i * stride, i * stride + window, np.array([score, 1 - score])) for i, score in pairs]


def test_a_class_is_held_until_another_is_seen_more_clearly() -> None:
    windows = seen(0.9, 0.8, 0.48, 0.46, 0.2, 0.1, 0.9)
    assert joined(windows, CLASSES, Joining(margin=0.1)) == [
        Segment(0.0, 4.0, "run", pytest.approx(0.66)),
        Segment(4.0, 6.0, "sit", pytest.approx(0.85)),
        Segment(6.0, 7.0, "run", pytest.approx(0.9)),
    ]
    assert len(joined(windows, CLASSES, Joining(margin=0.0))) == 3
    assert [s.start for s in joined(windows, CLASSES, Joining(margin=0.0))] == [0.0, 2.0, 6.0]


def test_what_is_seen_less_clearly_than_asked_is_no_segment() -> None:
    windows = seen(0.9, 0.55, 0.5, 0.1)
    assert [s[:3] for s in joined(windows, CLASSES, Joining(least=0.6))] == [(0.0, 1.0, "run"), (3.0, 4.0, "sit")]
    assert joined(windows, CLASSES, Joining(least=0.95)) == []
    assert joined([], CLASSES, Joining()) == []
    # What is held is no longer clear enough, and another class, within the margin, is.
    assert [s.name for s in joined(seen(0.9, 0.45), CLASSES, Joining(margin=0.2, least=0.5))] == ["run", "sit"]


def test_overlapping_windows_are_averaged() -> None:
    bounds_S1, scores_SK = stretches(seen(0.8, 0.4, 0.6, stride=1.0, window=2.0))
    assert bounds_S1.tolist() == [0.0, 1.0, 2.0, 4.0]
    # The middle of the last stretch, at 3 s, is in the third window alone.
    np.testing.assert_allclose(scores_SK[:, 0], [0.8, 0.6, 0.6])


def test_the_last_stretch_goes_on_to_the_end_and_gaps_are_what_was_before() -> None:
    windows = [Seen(0.0, 1.0, np.array([0.9, 0.1])), Seen(9.0, 10.0, np.array([0.2, 0.8]))]
    bounds_S1, scores_SK = stretches(windows, 15.0)
    assert bounds_S1.tolist() == [0.0, 9.0, 15.0]
    np.testing.assert_allclose(scores_SK[:, 0], [0.9, 0.2])
    assert [s[:3] for s in joined(windows, CLASSES, Joining(), 15.0)] == [(0.0, 9.0, "run"), (9.0, 15.0, "sit")]


def test_of_a_day_of_windows_the_means_need_little_memory() -> None:
    """A matrix of windows by windows would need 300 GB."""
    many = seen(*np.random.default_rng(0).random(200_000), stride=0.5)
    bounds_S1, scores_SK = stretches(many)
    assert len(bounds_S1) == len(scores_SK) + 1 == 200_001
    np.testing.assert_allclose(scores_SK[7], (many[6].scores_K + many[7].scores_K) / 2)


@pytest.mark.parametrize("folder", ["model_folder", "of_both", "of_flow"])
def test_windows_are_predicted_as_segments_are(folder: str, request: pytest.FixtureRequest, tiny_shapes: Path) -> None:
    model = load_model(request.getfixturevalue(folder))
    path = str(min(tiny_shapes.rglob("*.mp4")))
    [found] = timeline_of_each(model, [Video(path, 0, "test")], Pace(0.6, 0.3), Joining(), "cpu", Limits())
    assert found.windows[-1].end > 1, "all of the video"
    assert found.windows[-1].end == pytest.approx(found.seconds)
    segments = [Video(path, 0, "test", None, each.start, each.end) for each in found.windows]
    one_view = replace(model, config=replace(model.config, test=replace(model.config.test, temporal_views=1)))
    answers = predict_each(one_view, segments, len(model.classes), "cpu", Limits())
    for each, answer in zip(found.windows, answers, strict=True):
        expected = dict(answer.classes)
        np.testing.assert_allclose(each.scores_K, [expected[name] for name in model.classes], rtol=1e-4, atol=1e-6)


def test_a_segment_of_a_list_has_the_seconds_of_its_file(model_folder: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    path = min(tiny_shapes.rglob("*.mp4"))
    (tmp_path / "list.csv").write_text(f"path,start,end\n{path},0.4,0.9\n")
    [found] = timelines(tmp_path / "list.csv", model_folder, window=0.2)
    assert found.windows[0].start == pytest.approx(0.4)
    assert found.windows[-1].end == pytest.approx(0.9)
    assert found.segments[0].start == pytest.approx(0.4)


def test_the_usual_window_is_that_of_the_clips(model_folder: Path, of_both: Path) -> None:
    model = load_model(model_folder)
    assert pace_of(model) == Pace(32 / 30, 16 / 30)
    whole = load_model(of_both)
    assert whole.video_seconds == 0.0
    assert pace_of(replace(whole, video_seconds=3.5)) == Pace(3.5, 1.75)
    for window, stride, word in (
        (0.0, None, "window"),
        (1.0, 0.0, "stride"),
        (1.0, 1.5, "leave seconds out"),
        (1.2, None, "sees 1.067 s at once"),
    ):
        with pytest.raises(UserError, match=word):
            pace_of(model, window, stride)


def test_few_frames_are_kept_of_any_length() -> None:
    from pvnas.data.clips.windows import Window

    glimpses = Glimpses()
    for number in range(1000):
        glimpses.add(Window(number, float(number), number + 1.0, np.zeros((1, 2, 2, 3), np.uint8)))
    times = [time for time, _ in glimpses.kept]
    assert PICTURES <= len(times) < 2 * PICTURES
    assert len(set(np.diff(times))) == 1


# ---- the command


@pytest.fixture
def here(tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two videos, one of them broken, to stand in."""
    monkeypatch.chdir(tmp_path)
    good = min(tiny_shapes.rglob("*.mp4"))
    Path("set").mkdir()
    shutil.copy(good, "set/a<b>.mp4")
    Path("set/b.mp4").write_bytes(good.read_bytes()[:700])
    return tmp_path


def predict(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = cli.main(["predict", *words, "--timeline"])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


@pytest.mark.usefixtures("here")
def test_rows_lines_and_json_agree(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = ("--dir", str(model_folder), "--window", "0.5")
    code, out, err = predict(capfd, "set", *model, "--out", "found.csv")
    assert code == 2
    assert "set/b.mp4: unreadable" in err
    assert err.splitlines()[-1].endswith("1 of 2 videos cannot be read: see above; all others have their answer")
    assert "found.csv: 1 of 2 videos" in out
    rows = list(csv.DictReader(Path("found.csv").read_text().splitlines()))
    good = [row for row in rows if not row["error"]]
    assert [row["path"] for row in rows if row["error"]] == ["set/b.mp4"]
    assert float(good[0]["start"]) == 0
    code, out, _ = predict(capfd, "set", *model, "--json")
    [whole, bad] = sorted(json.loads(out)["videos"], key=lambda video: "error" in video)
    assert [(s["start"], s["class"]) for s in whole["segments"]] == [(float(r["start"]), r["class"]) for r in good]
    assert len(whole["windows"][0]) == 2 + len(whole["classes"])
    assert sum(whole["windows"][0][2:]) == pytest.approx(1, abs=1e-4)
    assert bad["segments"] == []
    code, out, _ = predict(capfd, "set/a<b>.mp4", *model)
    assert code == 0
    assert len(out.splitlines()) == 1 + len(good)
    code, _, _ = predict(capfd, "set", *model, "--out", "found.json")
    assert json.loads(Path("found.json").read_text())["window"] == 0.5
    code, _, err = predict(capfd, "set", *model, "--out", "found.json")  # which is ours to write anew
    assert "another file" not in err


@pytest.mark.usefixtures("here")
def test_subtitles_are_read_by_a_player(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, _ = predict(capfd, "set/a<b>.mp4", "--dir", str(model_folder), "--window", "0.5", "--out", "found.srt")
    assert code == 0
    before = Path("found.srt").read_text()
    code, _, err = predict(capfd, "set/a<b>.mp4", "--dir", str(model_folder), "--out", "found.srt")
    assert (code, "there is another file of this name" in err) == (2, True)
    assert Path("found.srt").read_text() == before, "subtitles do not tell who wrote them, so none is written anew"
    with av.open("found.srt") as container:
        lines = [packet for packet in container.demux() if packet.size]
    text = Path("found.srt").read_text()
    assert len(lines) == len(re.findall(r"^\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}$", text, re.MULTILINE)) > 0
    code, _, err = predict(capfd, "set", "--dir", str(model_folder), "--out", "other.srt")
    assert (code, "subtitles are of one video" in err) == (2, True)


@pytest.mark.usefixtures("here")
def test_the_page_shows_frames_scores_and_segments(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # a page of ours is written anew
        code, _, _ = predict(capfd, "set", "--dir", str(model_folder), "--window", "0.5", "--out", "found.html")
        assert code == 2
    page = Path("found.html").read_text()
    assert "a&lt;b&gt;.mp4" in page
    assert "a<b>" not in page
    assert page.count("data:image/jpeg;base64,") >= 3
    assert "Not read: unreadable" in page
    assert page.count("<svg") == 1


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "words, why",
    [
        (["--out", "x.txt"], "--out writes .csv, .json, .srt or .html"),
        (["--out", "mine.html"], "another file of this name"),
        (["--out", "mine.csv"], "another file of this name"),
        (["--out", "mine.srt"], "another file of this name"),
        (["--out", "report.html"], "another file of this name"),
        (["--stride", "5"], "leave seconds out"),
        (["--margin", "1.5"], "margin is in parts of the scores"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    words: list[str], why: str, model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("mine.html", "mine.csv", "report.html"):
        Path(name).write_text("<!doctype html>\n<html lang" if name == "report.html" else "something of mine")
    Path("mine.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    words = [*words, *(["--window", "0.5"] if "--stride" not in words else [])]
    videos = ["set/a<b>.mp4"] if "mine.srt" in words else ["set"]
    code, _, err = predict(capfd, *videos, "--dir", str(model_folder), *words)
    assert (code, err.count("\n")) == (2, 1), err
    assert why in err
    assert Path("mine.html").read_text() == "something of mine"
    assert "Hello" in Path("mine.srt").read_text()


@pytest.mark.usefixtures("here")
def test_a_file_of_before_outlives_a_video_that_cannot_be_read(
    model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("found.json", "found.html"):
        assert predict(capfd, "set/a<b>.mp4", "--dir", str(model_folder), "--window", "0.5", "--out", name)[0] == 0
        before = Path(name).read_bytes()
        assert predict(capfd, "set/b.mp4", "--dir", str(model_folder), "--out", name)[0] == 2
        assert Path(name).read_bytes() == before


def test_timelines_come_in_the_order_that_was_asked_for(model_folder: Path, tiny_shapes: Path) -> None:
    paths = sorted(tiny_shapes.rglob("*.mp4"))[:5]
    assert [found.path for found in timelines(paths, model_folder, window=0.5)] == paths


def test_what_is_of_a_timeline_alone_is_told(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words, why in (
        (["--margin", "0.2"], "--margin is of a timeline: add --timeline"),
        (["--across-cuts"], "--across-cuts is of a timeline"),
        (["--runtime", "onnx", "--device", "cuda"], "exports run on the CPU here"),
    ):
        assert cli.main(["predict", "x.mp4", "--dir", str(model_folder), *words]) == 2
        assert why in capfd.readouterr().err
