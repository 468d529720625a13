"""The page: complete for a finished run, honest for an unfinished one, inert whatever the files say."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image
from run_directory import HOSTILE, build_run

from pvnas.errors import UserError
from pvnas.report import sections, text
from pvnas.report.page import page_templates, write_report
from pvnas.report.record import RunRecord, Sample, read_run

MakeRun = Callable[..., Path]
FAILED = "could not be made"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; raises when an element is closed that was not open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """The text of the page with single spaces."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two classes, one of them with a hostile name, and its report."""
    run = build_run(tmp_path_factory.mktemp("finished") / "run", [HOSTILE, "b"], train_epochs=3, search_epochs=2)
    write_report(run)
    return run


def test_the_page_says_which_sampling_and_rule_the_test_had(finished: Path) -> None:
    assert "Sampling segment rule slowfast" in Page((finished / "report.html").read_text(encoding="utf-8")).text


def test_the_page_says_which_views_the_test_had(finished: Path, make_run: MakeRun) -> None:
    mirrored = make_run(search_epochs=0, train_epochs=1)
    results = json.loads((mirrored / "results.json").read_text())
    (mirrored / "results.json").write_text(json.dumps(results | {"mirrored_views": True}))
    write_report(mirrored)
    for run, ends in ((finished, "in space"), (mirrored, "in space, and each mirrored")):
        html = (run / "report.html").read_text(encoding="utf-8")
        assert re.findall(r"in time × \d+ (in space[^<]*)</small>", html) == [ends]


def test_page_is_one_sound_file_without_scripts_or_network(finished: Path) -> None:
    html = (finished / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert len(html) < 3_000_000


def test_page_shows_every_part_and_every_section_says_what_to_see(finished: Path) -> None:
    html = (finished / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert FAILED not in html
    assert "not complete" not in html
    assert html.count('<p class="see">') == html.count("<section") == 10
    for words in ("41.23 M", "236.41 k", "22.14 G", "77.15 M", "2 min 9 s", "ab" * 32, "unreadable", "format ffconcat"):
        assert words in page.text, words
    assert sum(tag == "img" for tag, _ in page.tags) == 12
    assert "✓ right" in page.text
    assert "✗ wrong" in page.text
    assert "preset: demo" in page.text
    assert "The network found by the search names the right one" in page.text
    assert re.search(r"Network width \d+, K = \d", page.text)  # and nothing before the width


def test_hostile_class_names_are_inert(finished: Path) -> None:
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "<script" not in (finished / "figures/confusion.svg").read_text(encoding="utf-8")


def test_whatever_a_file_says_is_escaped_and_cleaned(make_run: MakeRun) -> None:
    run = make_run(search_epochs=1, train_epochs=1)
    for name in ("results.json", "environment.json", "catalog.json"):
        content = json.loads((run / name).read_text())
        hostile = {key: HOSTILE for key, value in content.items() if isinstance(value, str)}
        (run / name).write_text(json.dumps({**content, **hostile, HOSTILE: HOSTILE}))
    verdict = {"path": HOSTILE, "verdict": HOSTILE, "detail": HOSTILE}
    (run / "verdicts.json").write_text(json.dumps([verdict]))
    sample = {"path": HOSTILE, "file": "00.png", "truth": HOSTILE, "prediction": HOSTILE, "score": 0.5}
    (run / "samples/samples.json").write_text(json.dumps([sample]))
    with (run / "config.yaml").open("a") as file:
        file.write("# " + HOSTILE.replace("\x1b", "") + "\n# </pre>")
    (run / "alphas.safetensors").unlink()
    html = write_report(run).read_text(encoding="utf-8")
    assert FAILED not in html
    assert html.count("&lt;script&gt;alert(1)") > 10
    assert "&lt;/pre&gt;" in html
    assert not any(part in html for part in ("<script", "\x1b", "\u202e"))


def test_figures_lie_beside_the_page_as_svg(finished: Path) -> None:
    names = {path.stem for path in (finished / "figures").glob("*.svg")}
    assert not list((finished / "figures").glob("*.png"))
    assert names >= {
        "cell_S-NC",
        "cell_T-RC",
        "alpha_T-NC",
        "parameter_free",
        "alpha_entropy",
        "schedules",
        "confusion",
    }
    assert names >= {"learning_search", "learning_train"}


def test_same_run_same_page(finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    assert write_report(finished).read_bytes() == before
    assert not list(finished.glob(".*"))


def test_search_that_is_running(make_run: MakeRun) -> None:
    page = Page(write_report(make_run(search_epochs=2, train_epochs=0, tested=False)).read_text(encoding="utf-8"))
    assert "Missing: test result" in page.text
    assert "training 0 of 24 epochs" in page.text
    assert "the cells after epoch 2 of the search" in page.text
    assert FAILED not in page.text


def test_training_that_is_running_with_a_torn_last_line(make_run: MakeRun) -> None:
    run = make_run(search_epochs=1, train_epochs=2, tested=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "train", "ep')
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "training 2 of 24 epochs, not tested" in page.text
    assert "metrics.jsonl: 1 line(s) are not metrics" in page.text
    assert FAILED not in page.text


def test_training_alone_without_a_search(make_run: MakeRun) -> None:
    run = make_run(search_epochs=1, train_epochs=2)
    (run / "metrics.jsonl").write_text('{"stage": "train", "epoch": 1, "loss": 2.0, "top1": 9.0, "lr": 0.1}\n')
    shutil.rmtree(run / "genotypes")
    (run / "alphas.safetensors").unlink()
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "The network of the given genotype names the right one" in page.text
    assert "How the search decided" not in page.text
    assert "search 0 of" not in page.text
    assert "Missing" not in page.text
    assert FAILED not in page.text


def test_damaged_files_cost_their_section_only(make_run: MakeRun) -> None:
    run = make_run(search_epochs=1, train_epochs=1)
    (run / "alphas.safetensors").write_bytes(b"not tensors")
    (run / "confusion.json").write_text('{"classes": ["a"], "matrix": [[1, 2]]}')
    (run / "genotype.json").write_text("{")
    (run / "results.json").write_text(json.dumps({"top1": "high", "classes": 3, "n_videos": None}))
    shown = Page(write_report(run).read_text(encoding="utf-8")).text
    for name in ("alphas.safetensors", "confusion.json", "genotype.json"):
        assert f"Not readable: {name}" in shown
    assert "The result could not be read" in shown
    assert "Costs beside the published networks" in shown


def test_no_run_is_one_line_for_the_person(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError) as caught:
            write_report(folder)
        assert "\n" not in str(caught.value)
        assert "pvnas run" in str(caught.value)


def test_strips_never_come_from_outside_the_folder(make_run: MakeRun) -> None:
    run = make_run(search_epochs=1, train_epochs=1)
    Image.new("RGB", (8, 8)).save(run / "secret.png")
    listed = [{"path": "a", "file": "../secret.png", "truth": "a", "prediction": "b", "score": 0.5}]
    (run / "samples/samples.json").write_text(json.dumps(listed))
    assert read_run(run).samples[0].png == b""


def test_pairs_that_are_mixed_up_link_to_their_clips(make_run: MakeRun) -> None:
    run = make_run(search_epochs=1, train_epochs=1)
    assert "The most confident mistakes" not in write_report(run).read_text(encoding="utf-8")
    names, matrix = read_run(run).confusion_classes, read_run(run).confusion
    assert matrix is not None
    truth, said = max(
        ((t, p) for t in range(len(names)) for p in range(len(names)) if t != p), key=lambda pair: matrix[pair]
    )
    listed = [{"path": HOSTILE, "file": "none.png", "truth": names[said], "prediction": names[truth], "score": 0.9}]
    listed += [{"path": "x.mp4", "file": "00.png", "truth": names[truth], "prediction": names[said], "score": 0.8}]
    (run / "samples/mistakes.json").write_text(json.dumps(listed))
    html = write_report(run).read_text(encoding="utf-8")
    assert '<a href="#mistake-2">2</a>' in html
    assert html.count('id="mistake-') == 2
    assert "the strip is missing" in html
    assert FAILED not in html
    assert "<script>alert" not in html


def test_large_strips_are_compacted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 2048, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "strip.png")
    png = (tmp_path / "strip.png").read_bytes()
    kind, data = sections.compact_strip(png)
    assert kind == "jpeg"
    assert len(data) < len(png) / 4


def test_a_search_that_departs_from_the_paper_says_so(make_run: MakeRun, finished: Path) -> None:
    run = make_run(search_epochs=4, train_epochs=0, tested=False)
    options = "  derive_epochs: 3\n  alphas: {start_epoch: 1.0, temperature: 8.0, final_temperature: 0.5}\n"
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("search:\n", f"search:\n{options}"))
    write_report(run)
    html = (run / "report.html").read_text(encoding="utf-8")
    assert FAILED not in html
    words = Page(html).text
    assert "trained alone for 1 of 4 epochs" in words
    assert "falls from 8 to 0.5." in words
    assert "mean of the shares after epochs 2 to 4." in words
    assert "softmax(α / temperature)" in (run / "figures/alpha_S-NC.svg").read_text(encoding="utf-8")
    record = read_run(run)
    temperatures = sections._temperatures(record)
    assert temperatures is not None
    np.testing.assert_allclose(temperatures, [8, 4, 2, 1, 0.5])
    assert "Not as in the paper" not in (finished / "report.html").read_text(encoding="utf-8")


def test_a_genotype_of_an_earlier_epoch_frames_no_edge(make_run: MakeRun) -> None:
    run = make_run(search_epochs=3, train_epochs=1)
    first = (run / "genotypes/epoch_001.json").read_text()
    (run / "genotype.json").write_text(first)
    record = read_run(run)
    assert record.genotype is not None
    changed = record.epoch_genotypes[3] != record.genotype
    assert sections.is_last_epoch(record, record.genotype) is not changed


@pytest.mark.parametrize(
    ("value", "shown"),
    [(19.65e6, "19.65 M"), (22_140_000_000, "22.14 G"), (999, "999"), (None, "–"), (float("nan"), "–"), ("x", "–")],
)
def test_scaled_numbers(value: object, shown: str) -> None:
    assert text.scaled(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(4.24, "4.2 s"), (59.6, "1 min 0 s"), (723, "12 min 3 s"), (14_820, "4 h 07 min"), (None, "–")],
)
def test_durations(seconds: object, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_the_command_is_shown_as_a_person_types_it() -> None:
    assert sections.typed_command(["/opt/bin/pvnas", "run", "my videos"]) == ["pvnas", "run", "my videos"]
    assert sections.typed_command(["/x/pvnas/__main__.py", "demo"]) == ["python", "-m", "pvnas", "demo"]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ("motion", "The network sees the second row of a strip alone: how each frame changes within 0.1 s."),
        ("both", "The network sees the first two rows of a strip: its frames and, below, how each frame changes"),
        ("flow", "The network sees the second row of a strip alone: where its pixels move within 0.1 s,"),
        ("rgb", None),
    ],
)
def test_the_page_says_which_row_of_a_strip_the_network_sees(seen: str, words: str | None) -> None:
    record = RunRecord(Path("run"), config={"clip": {"input": seen, "motion_seconds": 0.1}})
    record.samples = [Sample("a/1.mp4", "a", "a", 0.5, b"")]
    macros: Any = page_templates().get_template("sections.html").module
    text = " ".join(macros.clips(record, [(record.samples[0], None)]).split())
    assert (words in text) if words else ("row of a strip" not in text)


def page_of(run_dir: Path) -> str:
    return " ".join(write_report(run_dir).read_text(encoding="utf-8").split())


def test_the_page_says_what_a_score_is_worth_and_does_without_where_it_is_not_known(make_run: MakeRun) -> None:
    run_dir = make_run()
    bins = [
        {"low": 40.0, "high": 50.0, "n": 3, "said": 44.0, "right": 66.7},
        {"low": 90.0, "high": 100.0, "n": 9, "said": 97.0, "right": 88.9},
    ]
    results = json.loads((run_dir / "results.json").read_text())
    (run_dir / "results.json").write_text(json.dumps(results | {"calibration": {"ece": 11.75, "bins": bins}}))
    assert "are 11.75 % apart" in page_of(run_dir)
    assert (run_dir / "figures" / "calibration.svg").exists()
    record = RunRecord(run_dir)
    for damaged in (None, {"ece": "x", "bins": bins}, {"ece": 1.0, "bins": [{"low": None}]}, [], {"ece": 1.0}):
        record.results = {"calibration": damaged}
        assert sections._calibration(record, lambda *_: Markup("")) is None


def test_the_page_explains_the_row_that_says_why_where_there_is_one() -> None:
    record = RunRecord(Path("run"))
    macros: Any = page_templates().get_template("sections.html").module
    for explained in (False, True):
        record.samples = [Sample("a/1.mp4", "a", "a", 0.5, b"", explained)]
        text = macros.clips(record, [(record.samples[0], None)])
        assert ("red speaks for the class" in text) == explained
