"""Something-Something V2: ids from the labels file, templates without brackets, the test list, and faulty JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from catalogs import read_catalog
from pvnas.errors import UserError

LABELS = {"Holding something next to something": "1", "Closing something": "0"}
TEMPLATES = ["Closing [something]", "Holding [something] next to [something]"]


def clips(first: int, number: int) -> list[dict[str, Any]]:
    return [
        {"id": str(n), "label": "closing a book", "template": TEMPLATES[n % 2], "placeholders": ["a book"]}
        for n in range(first, first + number)
    ]


def lists(**changes: Any) -> dict[str, str | bytes]:
    content = {"labels": LABELS, "train": clips(0, 20), "validation": clips(20, 4), "test": [{"id": "99"}], **changes}
    return {
        f"something-something-v2-{name}.json": value if isinstance(value, bytes) else json.dumps(value)
        for name, value in content.items()
    }


def test_official_ids_of_the_174_templates(shared_data: Path, tmp_path: Path) -> None:
    labels = shared_data / "annotations" / "ssv2" / "something-something-v2-labels.derived.json"
    shutil.copy(labels, tmp_path / "something-something-v2-labels.json")
    ids = json.loads(labels.read_text())
    official = [
        {"id": str(1000 + n), "label": "x", "template": name.replace("something", "[something]"), "placeholders": []}
        for n, name in enumerate(sorted(ids, reverse=True))
    ]
    (tmp_path / "something-something-v2-validation.json").write_text(json.dumps(official))
    catalog = read_catalog(tmp_path, as_listed=True)
    assert len(catalog.classes) == len(catalog.videos) == 174
    assert {name: str(number) for number, name in enumerate(catalog.classes)} == ids
    by_path = {video.path: video.label for video in catalog.videos}
    assert all(
        by_path[f"{clip['id']}.webm"] == int(ids[clip["template"].replace("[", "").replace("]", "")])
        for clip in official
    )


@pytest.mark.parametrize("prefix", ["something-something-v2-", ""])
def test_classes_splits_and_paths(write, prefix: str) -> None:
    files = {name.replace("something-something-v2-", f"labels/{prefix}"): text for name, text in lists().items()}
    root = write(files | {"20bn-something-something-v2/3.webm": "", "20bn-something-something-v2/4.mp4": ""})
    catalog = read_catalog(root, as_listed=True)
    assert (catalog.format, catalog.unlabelled) == ("ssv2", 1)
    assert catalog.classes == ("Closing something", "Holding something next to something")
    assert catalog.summary() == "24 videos of 2 classes (train 20, val 4, test 0); 1 more have no label"
    by_name = {Path(video.path).stem: video for video in catalog.videos}
    assert all(video.label == int(name) % 2 and video.group is None for name, video in by_name.items())
    assert by_name["3"].path == "20bn-something-something-v2/3.webm"
    assert by_name["4"].path == "20bn-something-something-v2/4.mp4"
    assert by_name["5"].path == "20bn-something-something-v2/5.webm"


def test_for_training_the_official_validation_is_the_test(write) -> None:
    catalog = read_catalog(write(lists()))
    counts = {split: sum(numbers.values()) for split, numbers in catalog.counts().items()}
    assert counts == {"train": 16, "val": 4, "test": 4}
    assert {v.path for v in catalog.videos if v.split == "test"} == {f"{n}.webm" for n in range(20, 24)}
    assert catalog.select("val").videos != read_catalog(write(lists()), seed=1).select("val").videos


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train": {"id": "1"}}, r"v2-train.json: expected a JSON list"),
        ({"train": [1]}, r"v2-train.json, entry 1: 1 is no object"),
        ({"train": [{"id": "../1", "template": "Closing [something]"}]}, r"entry 1: id '../1' is no video id"),
        ({"train": [{"id": [1], "template": "Closing [something]"}]}, r"entry 1: id \[1\] is no video id"),
        ({"train": [*clips(0, 1), {"id": "1"}]}, r"entry 2: template None is no text"),
        (
            {"train": [{"id": "1", "template": "Opening [something]"}]},
            r"entry 1: template .* is not in the labels file",
        ),
        ({"train": [*clips(0, 2), *clips(1, 1)]}, r"line 3: '1.webm' is listed before, in line 2"),
        ({"validation": clips(0, 1)}, r"'0.webm' is listed before, in .*v2-train.json, line 1"),
        ({"train": b"[{"}, r"v2-train.json, line 1: .*give a whole JSON file"),
        ({"train": b"[" * 100_000}, r"v2-train.json is nested too deeply"),
        ({"train": b'[{"id": ' + b"9" * 5000 + b"}]"}, r"v2-train.json holds a number that is too long"),
        ({"labels": []}, r"v2-labels.json: expected one JSON object"),
        ({"labels": {"a": "0", "b": "0"}}, r"v2-labels.json: 'a' and 'b' have the same class id 0"),
        ({"labels": {"a": "0", "b": "2"}}, r"v2-labels.json: class id '2' of 'b' is not one of 0..1"),
        ({"labels": {"a": True}}, r"v2-labels.json: class id True of 'a'"),
        ({"labels": {"a": 10**30}}, r"v2-labels.json: class id 10+ of 'a'"),
        ({"labels": b'{"a": "0", "a": "1"}'}, r"class 'a' is named before"),
        ({"labels": b'{"\\ud800": "0"}'}, r"'\\ud800' is no class name"),
    ],
)
def test_mistakes_are_named(write, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_catalog(write(lists(**changes)), as_listed=True)
    assert len(str(caught.value)) < 500


def test_absent_files_are_named(write) -> None:
    files = lists()
    with pytest.raises(UserError, match=r"no something-something-v2-labels.json in"):
        read_catalog(write({name: files[name] for name in files if "labels" not in name}), format="ssv2")
    root = write({"x/something-something-v2-labels.json": json.dumps(LABELS)}) / "x"
    with pytest.raises(UserError, match=r"no something-something-v2-train.json in"):
        read_catalog(root, format="ssv2")
