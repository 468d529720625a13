"""Configs: presets, files, single fields, comparison, and every kind of bad file as one line."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pvnas.config import HARMLESS_FIELDS, RunConfig
from pvnas.errors import UserError
from pvnas.presets import PRESETS
from pvnas.settings import (
    MAX_FILE_BYTES,
    all_fields,
    check_config,
    check_resumable,
    differences,
    dump_config,
    get_field,
    load_config,
    preset_config,
    section_help,
)


def write(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "my.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def refused(**arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        load_config(**arguments)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("comments", [False, True])
def test_every_preset_is_valid_and_survives_a_file(tmp_path: Path, name: str, comments: bool) -> None:
    config = preset_config(name)
    check_config(config)
    assert config.preset == name
    file = write(tmp_path, dump_config(config, comments=comments))
    assert load_config(file=file) == config
    assert load_config("tiny", file).train == config.train  # complete: nothing is left of the other preset


def test_dump_is_the_whole_config_as_plain_yaml() -> None:
    config = preset_config("laptop")
    assert yaml.safe_load(dump_config(config)) == dataclasses.asdict(config)


def test_every_field_has_a_help_text_and_every_part_a_line() -> None:
    assert [name for name, field in all_fields().items() if not field.help] == []
    assert all(section_help(field.section) for field in all_fields().values())


def test_every_harmless_field_exists() -> None:
    assert set(all_fields()) >= HARMLESS_FIELDS


@settings(deadline=None, max_examples=50)
@given(
    st.builds(
        dict,
        **{
            "data.path": st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20),
            "train.weights.lr": st.floats(0, 10),
            "seed": st.integers(0, 2**63 - 1),
            "tensorboard": st.booleans(),
            "search.objective": st.sampled_from(["one-level", "bilevel-second"]),
        },
    )
)
def test_any_value_survives_a_file(tmp_path_factory: pytest.TempPathFactory, overrides: dict[str, object]) -> None:
    config = load_config("tiny", overrides=overrides)
    file = write(tmp_path_factory.mktemp("yaml"), dump_config(config))
    assert load_config(file=file) == config


def test_order_is_preset_then_file_then_single_fields(tmp_path: Path) -> None:
    file = write(tmp_path, "train: {width: 20, repeat: 3}\nsearch.epochs: 7\n")
    config = load_config("tiny", file, {"train.width": 21})
    assert (config.train.width, config.train.repeat, config.search.epochs) == (21, 3, 7)
    assert config.preset == "tiny"
    assert config.test == preset_config("tiny").test


def test_without_a_preset_the_file_names_it_or_it_is_laptop(tmp_path: Path) -> None:
    assert load_config(file=write(tmp_path, "preset: demo\n")) == preset_config("demo")
    assert load_config(file=write(tmp_path, "")) == preset_config("laptop") == load_config()


def test_presets_are_fresh_copies() -> None:
    preset_config("laptop").train.width = 99
    assert preset_config("laptop").train.width != 99


def test_numbers_that_yaml_reads_as_texts_are_numbers(tmp_path: Path) -> None:
    config = load_config("tiny", write(tmp_path, "train: {weights: {lr: 1e-3}}\nclip: {window_rate: 25}\n"))
    assert config.train.weights.lr == 0.001
    assert isinstance(config.clip.window_rate, float)


@pytest.mark.parametrize(
    "text, says",
    [
        ("train: {widht: 3}", "no field 'train.widht' (did you mean train.width?)"),
        ("trian: {width: 3}", "did you mean train?"),
        ("epochs: 3", "did you mean search.epochs, train.epochs?"),
        ("train: 3", "train takes a group of fields, not '3'"),
        ("- 1", "a config is a group of fields (name: value), not a list"),
        ("train: {width: many}", "train.width takes a whole number, not 'many'"),
        ("train: {width: 3.0}", "train.width takes a whole number"),
        ("train: {width: true}", "train.width takes a whole number, not 'true'"),
        ("train: {width: }", "train.width takes a whole number, not 'nothing'"),
        ("train: {width: [1, 2]}", "train.width takes a whole number, not a list"),
        ("train: {weights: {lr: .nan}}", "train.weights.lr takes a number, not 'nan'"),
        ("train: {weights: {lr: .inf}}", "train.weights.lr takes a number, not 'inf'"),
        ("tensorboard: 1", "tensorboard takes true or false, not '1'"),
        (
            "stem: stride3",
            "stem takes one of stride4, stride2, stride4-time, stride2-time, stride4-time2, ",
        ),
        ("data: {path: 3}", "data.path takes a text, not '3'"),
        ("preset: [a]", "preset takes a text, not a list"),
        ("preset: lapdog", "no preset 'lapdog' (did you mean laptop?)"),
        ("seed: 1\nseed: 2", "'seed' stands there twice"),
        ("seed: -1", "seed must be between 0 and"),
        ("train: {width: 0}", "train.width must be between 1 and"),
        ("train: {dropout: 1.0}", "train.dropout must be at least 0 and below 1, not '1'"),
        ("train: {width: 1" + "0" * 3000 + "}", "train.width must be between 1 and 65536, not a huge number"),
        ("train: {width: 1" + "0" * 5000 + "}", "is no plain YAML"),
        ("train: {weights: {lr: 1" + "0" * 400 + "}}", "train.weights.lr takes a number, not a huge number"),
        ("test: {spatial_views: 2}", "must be 1 or 3"),
        ("clip: {sampling: whole, frames: 1}", "clip.sampling whole takes the first and the last frame"),
        ("clip: {sampling: whole}\ntrain: {augment: {first_frames: 1}}", "and train.augment.first_frames is 1; set"),
        ("search: {stop_epoch: 99}", "search.stop_epoch (99) must not be after search.epochs"),
        ("search: {derive_epochs: 11}", "search.derive_epochs (11) must not be more than search.epochs (10); set"),
        ("search: {alphas: {start_epoch: 10}}", "search.alphas.start_epoch (10.0) must be before search.epochs (10)"),
        (
            "search: {stop_epoch: 3, alphas: {start_epoch: 3}}",
            "search.alphas.start_epoch (3.0) must be before search.stop_epoch (3)",
        ),
        (
            "search: {alphas: {temperature: 0.5}}",
            "search.alphas.final_temperature (1.0) must not be higher than search.alphas.temperature (0.5)",
        ),
        (
            "search: {objective: bilevel-first, half_steps: joint}",
            "search.half_steps joint makes one pass of one batch, and search.objective bilevel-first trains",
        ),
        (
            "train: {augment: {crop: 99}}",
            "train.augment.crop (99) must not be larger than train.augment.short",
        ),
        ("a: [", "is no plain YAML: line 1"),
        ("\t: 1", "is no plain YAML"),
        ("2020-13-45: 1", "no"),
        ("? [a, b]\n: 1", "no"),
        ("? {a: b}\n: 1", "is no plain YAML"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused(preset=None, file=write(tmp_path, text))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch pwned']",
        "seed: !!python/object/apply:builtins.eval ['1+1']",
        "seed: !!python/name:os.system ''",
        "seed: !!python/object/new:type {args: [a, [], {}]}",
        "!!python/module:this ''",
        "seed: !!int 3",
        "seed: !custom 3",
        "a: &x 1\nb: *x",
        "<<: {seed: 1}\n&a seed: 2",
        BOMB,
        "[" * 20_000,
        "{a: " * 5_000,
        "seed: " + "9" * MAX_FILE_BYTES,
        b"\xff\xfe\x00bad",
        b"seed: \x00",
        b"--- 1\n--- 2\n",
        "seed: 99999999-01-01",
        "seed: 0001-01-01T00:00:00+99:99",
    ],
    ids=range(18),
)
def test_a_crafted_file_executes_nothing_and_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(preset="tiny", file=write(tmp_path, text))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.yaml"]


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    assert "no config file" in refused(preset="tiny", file=tmp_path / "nothing.yaml")
    assert "no config file" in refused(preset="tiny", file=tmp_path)


def test_a_wrong_single_field_is_one_line() -> None:
    assert "did you mean train.width?" in refused(preset="tiny", overrides={"train.widht": 3})
    assert "train.width takes a whole number" in refused(preset="tiny", overrides={"train.width": "x"})
    assert "no preset 'tyni' (did you mean tiny?)" in refused(preset="tyni")


def test_differences_name_each_field_old_and_new() -> None:
    old, new = preset_config("laptop"), preset_config("laptop")
    assert differences(old, new) == {}
    new.train.weights.lr, new.tensorboard, new.data.path = 0.5, False, "x"
    assert differences(old, new) == {
        "tensorboard": "true -> false",
        "data.path": "'' -> x",
        "train.weights.lr": f"{old.train.weights.lr} -> 0.5",
    }


def test_changing_any_field_is_seen() -> None:
    other = {int: 12345, float: 0.12345, str: "other"}
    for name, field in all_fields().items():
        config = RunConfig()
        section, _, leaf = name.rpartition(".")
        part = get_field(config, section) if section else config
        setattr(part, leaf, not getattr(part, leaf) if field.kind is bool else other.get(field.kind, "another"))
        assert list(differences(RunConfig(), config)) == [name]


def test_a_used_directory_takes_the_same_config_only(tmp_path: Path) -> None:
    config = preset_config("tiny")
    check_resumable(tmp_path / "new", config)
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    check_resumable(tmp_path, config)
    (tmp_path / "environment.json").touch()
    check_resumable(tmp_path, preset_config("laptop"))  # nothing is learnt yet: a refused command is mended by another
    (tmp_path / "model.safetensors").touch()
    check_resumable(tmp_path, config)
    config.data.path = "/moved"
    config.data.workers, config.tensorboard, config.checkpoint_minutes = 3, False, 1.0
    check_resumable(tmp_path, config)
    config.seed, config.train.weights.lr = 4, 0.25
    with pytest.raises(UserError, match=r"\(seed: 0 -> 4; train\.weights\.lr: \S+ -> 0\.25\); to") as caught:
        check_resumable(tmp_path, config)
    assert "workers" not in str(caught.value)
    with pytest.raises(UserError, match=r"config \(preset: tiny -> laptop; stem.*; \d\d fields more\); to resume"):
        check_resumable(tmp_path, preset_config("laptop"))


def test_a_damaged_config_in_a_used_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xff")
    with pytest.raises(UserError, match="is no plain YAML"):
        check_resumable(tmp_path, preset_config("tiny"))


@pytest.mark.parametrize("text, value", [("true", "true"), ("off", "false"), ("'false'", "false"), ("swap", "swap")])
def test_a_choice_that_holds_true_and_false_takes_yamls_booleans(tmp_path: Path, text: str, value: str) -> None:
    file = write(tmp_path, f"test:\n  flip: false\ntrain:\n  augment:\n    flip: {text}\n")
    assert load_config(file=file).train.augment.flip == value


def test_a_choice_without_them_does_not(tmp_path: Path) -> None:
    assert "stem takes one of stride4, stride2" in refused(file=write(tmp_path, "stem: true\n"))


def test_balanced_batches_of_a_pack_shard_after_shard_are_refused() -> None:
    with pytest.raises(UserError, match=r"set --train\.balance weights or --data\.order random$"):
        load_config("tiny", overrides={"data.order": "shards", "train.balance": "batches"})
    with pytest.raises(UserError, match=r"search\.balance groups from class to class; set --search\.balance weights"):
        load_config("tiny", overrides={"data.order": "shards", "search.balance": "groups"})
    load_config("tiny", overrides={"data.order": "shards", "train.balance": "weights"})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"train.augment.drop_rgb": 0.2}, "clip.input is rgb; set --clip.input both"),
        ({"clip.input": "motion", "search.augment.drop_rgb": 0.2}, "clip.input is motion"),
        (
            {"clip.input": "flow", "train.augment.grey": 0.2},
            "and clip.input flow sees none; set --train.augment.grey 0",
        ),
        (
            {"clip.input": "motion", "search.augment.static": 0.2},
            "sees what moves alone; set --search.augment.static 0",
        ),
        ({"search.drop_path": 1}, "search.drop_path must be at least 0 and below 1, not '1'"),
        ({"train.augment.rotate": 400}, "train.augment.rotate must be between 0 and 180, not '400'"),
        ({"train.augment.mixup": 0.2, "train.batch.clips_per_shard": 1}, "clips_per_shard is 1; set it to 2"),
        ({"search.augment.cutmix": 1.0, "search.batch.clips_per_shard": 1}, "search.augment.cutmix mixes clips"),
        ({"train.augment.window_min": 1.2}, "train.augment.window_max"),
        ({"train.augment.aspect": 0.5}, "between 1 and 4"),
    ],
)
def test_an_augmentation_that_would_do_nothing_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=re.escape(named)):
        load_config("tiny", overrides=options)
