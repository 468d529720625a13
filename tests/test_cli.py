"""The command line: every mistake one line and exit code 2, results on stdout, quick help; mostly in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import pvnas
from pvnas import cli, pipeline, session
from pvnas.api import make_paths_absolute
from pvnas.cli import commands
from pvnas.cli.overview import all_commands
from pvnas.errors import UserError
from pvnas.presets import PRESETS, laptop
from pvnas.report import page
from pvnas.runtime.signals import Interrupted
from pvnas.settings import all_fields, dump_config, load_config, preset_config
from pvnas.space.genotype import Genotype, random_genotype


@dataclass
class Outcome:
    """How one command line ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]
COMMANDS = all_commands()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_main(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run_main


@pytest.fixture
def genotype_file(tmp_path: Path) -> Path:
    file = tmp_path / "genotype.json"
    file.write_text(random_genotype(1, 4).to_json(), encoding="utf-8")
    return file


def subprocess_run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pvnas", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def assert_one_line(outcome: Outcome | subprocess.CompletedProcess[str]) -> str:
    """Assert exit code 2, nothing on stdout, and one line on stderr; return the line."""
    code, out, err = (
        (outcome.code, outcome.out, outcome.err)
        if isinstance(outcome, Outcome)
        else (outcome.returncode, outcome.stdout, outcome.stderr)
    )
    assert code == 2, err
    assert out == ""
    assert err.startswith("pvnas: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


# Help


def test_overview_lists_every_command_and_preset(run: Run) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        outcome = run(*arguments)
        assert outcome.code == 0
        assert all(name in outcome.out and command.summary in outcome.out for name, command in COMMANDS.items())
        assert all(name in outcome.out for name in PRESETS)


def test_a_group_explains_its_commands(run: Run) -> None:
    outcome = run("data", "--help")
    assert outcome.code == 0
    assert [line.split()[1] for line in outcome.out.splitlines() if line.startswith("  data")] == [
        "list",
        "check",
        "show",
        "pack",
        "verify",
        "shapes",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(run: Run, name: str) -> None:
    outcome = run(*name.split(), "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert COMMANDS[name].summary in outcome.out
    assert f"  pvnas {name}" in outcome.out.partition("example:\n")[2]


def test_every_field_is_an_option_and_the_main_ones_come_first(run: Run) -> None:
    text = run("run", "--help").out
    assert [name for name in all_fields() if f"--{name} " not in text] == []
    assert text.index("--train.width") < text.index("--search.layout")
    assert f"[{laptop().search.epochs}]" in text.partition("--search.epochs")[2][:100]
    assert "[80]" in run("run", "--preset", "pvnas-l", "--help").out.partition("--search.epochs")[2][:100]


NEW_COMMAND = '''
from pvnas.cli.command import Argument, command

@command(
    "hello",
    Argument("name", "whom", metavar="NAME"),
    Argument("--times", "how often", 1, least=1),
    example="pvnas hello Ada",
)
def hello(args):
    """Say hello."""
    print(f"hello {args.name}! " * args.times)
'''


def test_a_command_costs_one_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hello.py").write_text(NEW_COMMAND, encoding="utf-8")
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    all_commands.cache_clear()
    try:
        assert run("hello", "Ada", "--times", "2").out == "hello Ada! hello Ada! \n"
        assert "--times must be at least 1, not 0" in assert_one_line(run("hello", "Ada", "--times", "0"))
        assert "Say hello." in run().out
        assert "usage: pvnas hello NAME [--times N]" in run("hello", "--help").out
    finally:
        all_commands.cache_clear()
        sys.modules.pop("pvnas.cli.commands.hello", None)


def test_version(run: Run) -> None:
    assert run("--version").out == f"pvnas {pvnas.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["run", "x", "--nonsense"]])
def test_help_and_mistakes_come_without_torch(arguments: list[str]) -> None:
    code = f"import sys; from pvnas.cli import main; main({arguments!r}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# Mistakes


@pytest.mark.parametrize(
    "line, says",
    [
        ("--preset tiny", "options come after a command, such as pvnas run DATA --preset; see: pvnas --help"),
        ("rnu x", "no command 'rnu' (did you mean run?)"),
        ("--vresion", "no command '--vresion'"),
        ("data", "pvnas data takes one of list, check, show, pack, verify, shapes"),
        ("data lst x", "not 'lst' (did you mean list?)"),
        ("run", "which videos?"),
        ("run nowhere", "no folder 'nowhere'"),
        ("run . --preset lapotp", "no preset 'lapotp' (did you mean laptop?)"),
        ("run . --search.epoch 3", "no option '--search.epoch' (did you mean --search.epochs?)"),
        ("run . --epochs 3", "(did you mean --search.epochs, train.epochs?)"),
        ("run . --train.widht=3", "did you mean --train.width?"),
        ("run . --train.width many", "train.width takes a whole number, not 'many'"),
        ("run . --train.width 0", "train.width must be between 1 and"),
        ("run . --train.width", "--train.width: expected one argument"),
        ("run . --train.weights.lr nan", "train.weights.lr takes a number, not 'nan'"),
        (
            "run . --stem stride3",
            "stem takes one of stride4, stride2, stride4-time, stride2-time, stride4-time2, stride2-time2, not",
        ),
        ("run . --search {}", "no option '--search'"),
        ("run . --config nothing.yaml", "no config file nothing.yaml"),
        ("run . .", "one argument too many, '.'"),
        ("train . --dir r", "holds no genotype yet; name one with --genotype FILE"),
        ("train . --genotype nothing.json", "nothing.json: cannot read the genotype"),
        ("test", "pvnas test needs RUN|DATA"),
        ("test .", "'.' is no run directory (it holds no config.yaml); where it holds videos: pvnas test . --dir RUN"),
        ("report nowhere", "'nowhere' is no run directory"),
        ("digest nowhere", "'nowhere' is no run directory"),
        ("predict --dir x", "pvnas predict needs VIDEO"),
        ("predict", "pvnas predict needs VIDEO and --dir RUN; see: pvnas predict --help"),
        ("predict --dri x", "no option '--dri' (did you mean --dir?)"),
        ("predict --dir nowhere -- -odd.mp4", "'nowhere' is no run directory"),
        ("run . --tensorboard maybe", "tensorboard takes true or false, not 'maybe'"),
        ("run . --preset=", "no preset ''; there are tiny, demo"),
        ("cost genotype.json --json=3", "--json: ignored explicit argument '3'"),
        ("predict x.mp4", "pvnas predict needs --dir RUN"),
        ("cost", "pvnas cost needs GENOTYPE"),
        ("cost nothing.json", "nothing.json: cannot read the genotype"),
        ("cost genotype.json --width x", "--width takes a whole number, not 'x'"),
        ("cost genotype.json --width 0", "width is 0"),
        ("cost genotype.json --clip 8x224", "--clip takes frames x height x width, for example 8x224x224"),
        ("cost genotype.json --clip 8x²x2", "--clip takes"),
        ("cost genotype.json --stem x", "--stem takes one of stride4, stride2"),
        ("cost genotype.json --input sound", "--input takes one of rgb, motion, both"),
        ("cost genotype.json --views 0", "--views must be at least 1"),
        ("cost genotype.json --layout X", "layout"),
        ("cost .", "genotype"),
        ("genotype random --min-convolutions 9", "at least 9 convolutions"),
        ("genotype random --seed x", "--seed takes a whole number"),
        ("genotype random --out genotype.json/g.json", "genotype.json"),
        ("config show lap", "did you mean laptop?"),
        ("data list nowhere", "nowhere"),
        ("data check .", ""),
        ("data shapes genotype.json", ""),
        ("data list . --format ufc101", "--format takes one of auto, folders, classes, split.csv"),
        ("data list . --split 4", "--split is 1, 2 or 3, not 4"),
        ("data list . --format ucf101", "no trainlist01.txt or testlist01.txt in ."),
        ("data list . --format pack", "pack"),
        ("data list s3://bucket/pack --format folders", "behind a URL there can only be a pack"),
        ("data check . --workers 0", "at least 1 worker"),
        ("data pack .", "pvnas data pack needs PACK"),
        ("data pack nowhere out", "nowhere"),
        ("data verify .", "pack"),
        ("run . --data.split 4", "data.split must be between 1 and 3"),
        ("run . --train.augment.flip maybe", "train.augment.flip takes one of auto, true, false, swap"),
        ("bench", "pvnas bench takes one of data, search"),
        ("bench data --clips 0", "--clips must be at least 1, not 0"),
        ("bench data --footage nothing.mp4", "no video file 'nothing.mp4'"),
        ("bench data nowhere", "nowhere"),
        ("bench search --clip 8x64", "--clip takes frames x height x width"),
        ("bench search --batch 0", "--batch must be at least 1, not 0"),
        ("bench search --device tpu", "--device takes one of cpu, cuda, not 'tpu'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run: Run, genotype_file: Path, line: str, says: str) -> None:
    assert says in assert_one_line(run(*line.split()))


def test_messages_about_videos_name_the_options_of_the_command_at_hand(run: Run, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("../a.mp4 0\n", encoding="utf-8")
    assert "or type --allow-outside FOLDER" in assert_one_line(run("data", "list", "."))
    assert "or type --data.allow_outside FOLDER" in assert_one_line(run("run", ".", "--dir", "r"))


def test_mistakes_of_a_real_process_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "one" / "class").mkdir(parents=True)
    (tmp_path / "bad.json").write_text('{"format": "pvnas-genotype", "version": 1, "cells": {}}', encoding="utf-8")
    (tmp_path / "bomb.yaml").write_text("a: &a [1]\nb: [*a, *a]\n", encoding="utf-8")
    for line in ("run nowhere", "data list one", "genotype show bad.json", "run one --config bomb.yaml"):
        assert_one_line(subprocess_run(*line.split(), cwd=tmp_path))


def test_control_characters_and_line_breaks_stay_out_of_the_terminal(run: Run) -> None:
    line = assert_one_line(run("run", "no\x1b[31m\nfolder"))
    assert "\x1b" not in line


def test_nothing_is_left_behind_by_a_mistake(run: Run, tmp_path: Path) -> None:
    run("run", "nowhere", "--dir", "r")
    run("run", ".", "--dir", "r")
    assert list(tmp_path.iterdir()) == []


# What reaches the pipeline


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


def test_preset_file_and_options_reach_the_pipeline(
    run: Run, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, Path]] = []
    monkeypatch.setattr(pipeline, "search", lambda config, run_dir: calls.append((config, run_dir)))
    (tmp_path / "my.yaml").write_text("train: {width: 20, repeat: 3}", encoding="utf-8")
    outcome = run("search", "videos", "--preset", "tiny", "--config", "my.yaml", "--train.width", "21")
    assert outcome.code == 0, outcome.err
    ((config, run_dir),) = calls
    assert run_dir == Path("runs/videos-tiny")
    assert config == load_config("tiny", overrides={"train.width": 21, "train.repeat": 3, "data.path": str(videos)})


def test_the_data_folder_may_come_from_the_file(run: Run, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, Path]] = []
    monkeypatch.setattr(pipeline, "search", lambda config, run_dir: calls.append((config, run_dir)))
    Path("my.yaml").write_text("data: {path: videos}", encoding="utf-8")
    assert run("search", "--config", "my.yaml", "--dir", "r").code == 0
    assert calls[0][0].data.path == str(videos)
    assert calls[0][1] == Path("r")


def test_an_interrupted_run_says_how_to_resume(run: Run, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(config: Any, run_dir: Path) -> None:
        raise Interrupted("stopped after epoch 3, all is saved")

    monkeypatch.setattr(pipeline, "search", stop)
    outcome = run("search", "videos", "--dir", "my run")
    assert outcome.code == 75
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("type the same command: pvnas search videos --dir 'my run'\n")


@pytest.mark.parametrize(
    "error, code, says",
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (OSError(28, "No space left on device", "r/model"), 2, "No space left on device: r/model"),
        (BrokenPipeError(), 141, ""),
        (UserError("one\nline"), 2, "one line"),
    ],
)
def test_other_ends(
    run: Run, videos: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    def fail(config: Any, run_dir: Path) -> None:
        raise error

    monkeypatch.setattr(pipeline, "search", fail)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back what a broken pipe replaces
    outcome = run("search", "videos", "--dir", "r")
    assert outcome.code == code
    assert says in outcome.err
    assert "Traceback" not in outcome.err


def test_a_bug_keeps_its_traceback(run: Run, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "search", lambda config, run_dir: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("search", "videos", "--dir", "r")


# Genotypes and costs


def test_random_genotypes_follow_the_seed(run: Run) -> None:
    first, again, other = (run("genotype", "random", "--seed", seed).out for seed in ("7", "7", "8"))
    assert first == again != other
    assert Genotype.from_json(first) == random_genotype(7)
    asked = run("genotype", "random", "--seed", "7", "--min-convolutions", "4").out
    assert Genotype.from_json(asked) == random_genotype(7, 4)
    outcome = run("genotype", "random", "--seed", "7", "--out", "g.json")
    assert (outcome.code, outcome.out) == (0, "")
    assert Path("g.json").read_text(encoding="utf-8") == first


def test_show_prints_every_edge(run: Run, genotype_file: Path) -> None:
    text = run("genotype", "show", str(genotype_file)).out
    genotype = Genotype.load(genotype_file)
    assert all(f"{edge.operation} of " in text for _, _, edge in genotype.edges())
    assert f"parameter-free operations: {genotype.parameter_free()['total']} of 32" in text


def test_cost_prints_json_and_a_table(run: Run, genotype_file: Path) -> None:
    line = f"cost {genotype_file} --width 4 --repeat 2 --clip 4x32x48 --classes 3 --stem stride2 --views 6".split()
    cost = json.loads(run(*line, "--json").out)
    assert cost["macs"] == cost["macs_per_view"]
    assert cost["macs_per_video"] == 6 * cost["macs"]
    assert (cost["clip"], cost["views"], cost["classes"], cost["width"]) == ([4, 32, 48], 6, 3, 4)
    assert cost["params"] > 0
    assert cost["activations"] > 0
    assert "latency" not in cost
    both = json.loads(run(*line, "--input", "both", "--json").out)
    assert (both["input"], cost["input"]) == ("both", "rgb")
    assert both["params"] == cost["params"] + 4 * 3 * 9  # three more channels of the stem's 3x3 kernel
    table = run(*line).out
    assert f"{cost['params']:,}" in table
    assert f"{cost['macs_per_video']:,}" in table


def test_cost_measures_latency(run: Run, genotype_file: Path) -> None:
    line = f"cost {genotype_file} --width 2 --clip 2x32x32 --classes 2 --stem stride2 --latency --json".split()
    latency = json.loads(run(*line, "--input", "both", "--batch", "2").out)["latency"]
    assert 0 < latency["median_ms"] <= latency["p95_ms"]
    assert (latency["runs"], latency["of"]) == (30, "2 clips at once on the CPU, one thread")


# Data and configs


def test_data_list_counts(run: Run, tiny_shapes: Path) -> None:
    summary = json.loads(run("data", "list", str(tiny_shapes), "--json").out)
    assert summary["videos"] == sum(summary["splits"].values()) == 48
    assert len(summary["classes"]) == 8
    assert summary["missing"] == []
    text = run("data", "list", str(tiny_shapes)).out
    assert "move_left" in text
    assert "split.csv: 48 videos of 8 classes (train 32, val 8, test 8), 0 missing" in text


@pytest.mark.parametrize("options", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C"}])
@pytest.mark.parametrize("command", ["list", "check"])
def test_names_that_the_console_cannot_show(tmp_path: Path, command: str, options: dict[str, str]) -> None:
    for name in ("跳跃", "run 🏃", os.fsdecode(b"caf\xe9")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "set" / name / f"视频 {number}.mp4").touch()
    done = subprocess_run("data", command, str(tmp_path / "set"), env=os.environ | options)
    assert "Traceback" not in done.stderr
    assert "caf?" in done.stdout
    assert "9 videos" in done.stdout


def test_data_list_of_official_lists_without_their_videos(run: Run, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Hammering\r\n2 HammerThrow\r\n")
    for number in (1, 2):
        (lists / f"trainlist0{number}.txt").write_text("HammerThrow/v_HammerThrow_g01_c01.avi 2\r\n")
        (lists / f"testlist0{number}.txt").write_text("Hammering/v_Hammering_g02_c01.avi\r\n")
    (lists / "trainlist02.txt").write_text(
        "Hammering/v_Hammering_g03_c01.avi 1\nHammerThrow/v_HammerThrow_g01_c01.avi 2\n"
    )
    summary = json.loads(run("data", "list", "lists", "--format", "ucf101", "--split", "2", "--json").out)
    assert summary["splits"] == {"train": 2, "val": 0, "test": 1}
    assert summary["classes"] == ["Hammering", "HammerThrow"]
    assert len(summary["missing"]) == 3
    text = run("data", "list", "lists", "--split", "2").out
    assert "v_Hammering_g02_c01.avi" in text
    assert "3 missing" in text


def test_pack_verify_and_list_of_a_pack(run: Run, tiny_shapes: Path) -> None:
    packed = json.loads(run("data", "pack", str(tiny_shapes), "packed", "--short-side", "32", "--json").out)
    assert (packed["videos"], packed["left_out"]) == (48, 0)
    assert packed["splits"] == {"train": 32, "val": 8, "test": 8}
    assert run("data", "verify", "packed").out == "packed: sound\n"
    listed = json.loads(run("data", "list", "packed", "--json").out)
    assert (listed["format"], listed["videos"], listed["missing"]) == ("pack", 48, [])
    assert "is a pack already" in assert_one_line(run("data", "pack", "packed", "again"))
    assert "pvnas data verify PACK" in assert_one_line(run("data", "check", "packed"))
    shard = next(Path("packed").glob("train-*.tar"))
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    outcome = run("data", "verify", "packed")
    assert outcome.code == 2
    assert shard.name in outcome.out


def test_bench_search_measures_both_supernets(run: Run) -> None:
    options = ("--width", "2", "--batch", "2", "--clip", "2x48x48", "--classes", "3", "--steps", "1", "--rounds", "1")
    found = json.loads(run("bench", "search", *options, "--json").out)
    assert found["fast"]["clips_per_s"] > 0
    assert found["plain"]["peak_bytes"] > 0
    # The weighted sums count as products of matrices in the one and as additions in the other, which counts 1x1x1 more.
    assert 0.9 < found["fast"]["gmacs_per_clip"] / found["plain"]["gmacs_per_clip"] < 1.5
    assert found["fast"]["bytes_per_clip"] < found["plain"]["bytes_per_clip"]
    assert 0 < found["fast"]["roofline"]["share"] < 1


def test_bench_search_measures_every_combination(run: Run) -> None:
    options = (
        "--batch",
        "1",
        "--clip",
        "2x48x48",
        "--classes",
        "2",
        "--steps",
        "1",
        "--rounds",
        "1",
        "--no-plain",
    )
    done = run("bench", "search", "--width", "2", "3", *options)
    assert done.code == 0, done.err
    rows = [line.split()[:3] for line in done.out.splitlines() if "2x48x48" in line]
    assert rows == [[width, "1", "2x48x48"] for width in "23"]
    assert "times plain" not in done.out


def test_bench_search_refuses_a_bad_one_of_several_before_it_measures(run: Run) -> None:
    said = assert_one_line(run("bench", "search", "--width", "4", "1"))
    assert "--width must be at least 2, not 1" in said


def test_bench_search_says_why_a_supernet_does_not_get_through(run: Run) -> None:
    options = ("--width", "2", "--batch", "2", "--clip", "2x8x8", "--steps", "1", "--rounds", "1")
    assert "frames of 8x8 leave 1x1 pixels after the reductions" in assert_one_line(run("bench", "search", *options))


def test_bench_data_measures_every_way(run: Run, tiny_shapes: Path) -> None:
    options = ("--clips", "2", "--short-side", "32", "--workers", "1", "--json")
    found = json.loads(run("bench", "data", str(tiny_shapes), *options).out)
    assert found["direct"]["pvnas"] > 0
    assert found["packed"] > 0
    assert found["ram"] > 0
    assert set(found["stages_ms"]) == {"open", "seek", "decode", "convert", "augment", "collate"}
    assert all(value > 0 for value in found["stages_ms"].values())
    loaders = [(row["from"], row["workers"]) for row in found["loader"]]
    assert loaders[:3] == [("files", 0), ("files", 1), ("memory", 0)]
    assert all(row["clips_per_s"] > 0 for row in found["loader"])
    assert found["machine"]["threads"] == 1


def test_data_check_names_a_bad_video(run: Run, tiny_shapes: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for number, video in enumerate(sorted(tiny_shapes.rglob("*.mp4"))[:8]):
        (tmp_path / "set" / "ab"[number % 2] / f"{number}.mp4").write_bytes(video.read_bytes())
    (tmp_path / "set" / "a" / "noise.mp4").write_bytes(bytes(range(256)) * 8)
    outcome = run("data", "check", "set", "--json", "--out", "checked")
    assert outcome.code == 1, outcome.err
    checked = json.loads(outcome.out)
    verdicts = {video["path"]: video["verdict"] for video in checked["videos"]}
    assert len(verdicts) == 9
    assert [path for path, verdict in verdicts.items() if verdict not in ("ok", "short")] == ["a/noise.mp4"]
    assert sum(checked["counts"].values()) == 9
    assert sorted(path.name for path in Path("checked").iterdir()) == ["verdicts.csv", "verdicts.json"]
    assert "a/noise.mp4" in run("data", "check", "set").out


def test_config_show_is_a_config_file(run: Run) -> None:
    text = run("config", "show", "laptop").out
    assert "# Channels of the first cells" in text
    assert yaml.safe_load(text)["preset"] == "laptop"
    Path("my.yaml").write_text(text, encoding="utf-8")
    assert load_config(file="my.yaml") == preset_config("laptop")
    assert all(name in run("config", "show").out for name in PRESETS)


def test_a_closed_pipe_is_quiet() -> None:
    command = [sys.executable, "-m", "pvnas", "config", "show", "laptop"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


# The public names of the package


def test_public_names_are_imported_when_used() -> None:
    code = "import sys, pvnas; assert 'torch' not in sys.modules; pvnas.Genotype; pvnas.create_model; pvnas.predict"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert all(getattr(pvnas, name) is not None for name in pvnas.__all__)
    assert set(pvnas.__all__) <= set(dir(pvnas))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pvnas.nonsense  # noqa: B018


# The whole job


def test_the_whole_job_resumes_and_refuses_another_config(
    run: Run, tiny_shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The smallest networks, two steps of one thread in each stage: what matters is what the commands say and write.
    values = {"search.epochs": 1, "train.epochs": 1, "search.width": 2, "train.width": 2, "threads": 1}
    for stage in ("search", "train"):
        values |= {f"{stage}.batch.shards": 1, f"{stage}.batch.clips_per_shard": 16}
    fields = ["--preset", "tiny", "--tensorboard", "false", *(f"--{name}={value}" for name, value in values.items())]
    line = ["run", str(tiny_shapes), "--dir", "r", *fields]
    first = run(*line)
    assert first.code == 0, first.err
    assert "top-1 (%)" in first.out
    assert "report: r/report.html" in first.out
    assert load_config(file="r/config.yaml").data.path == str(tiny_shapes)
    digest = run("digest", "r").out
    assert len(digest.strip()) == 64
    assert json.loads(Path("r/results.json").read_text(encoding="utf-8"))["digest"] == digest.strip()

    # The page takes longer than all the rest, and once is enough for it here.
    monkeypatch.setattr(session, "write_report", lambda run_dir, *_, **__: run_dir / "report.html")
    monkeypatch.setattr(page, "write_report", session.write_report)
    again = run(*line, "--data.workers", "1")
    assert again.code == 0, again.err
    assert run("digest", "r").out == digest

    said = assert_one_line(run(*line, "--seed", "5"))
    assert "(seed: 0 -> 5)" in said

    tested = json.loads(run("test", "r", "--json").out)
    assert tested["n_videos"] == 8
    assert run("report", "r").out == "r/report.html\n"

    video = str(min(tiny_shapes.rglob("*.mp4")))
    (prediction,) = json.loads(run("predict", video, "--dir", "r", "--top", "3", "--json").out)
    assert prediction["path"] == video
    assert len(prediction["classes"]) == 3
    assert "score" in run("predict", video, "--dir", "r").out
    assert_one_line(run("predict", "r/config.yaml", "--dir", "r"))


def test_dumped_configs_of_all_presets_are_accepted(run: Run, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(pipeline, "search", lambda config, run_dir: seen.append(config))
    for name in PRESETS:
        Path("my.yaml").write_text(dump_config(preset_config(name)), encoding="utf-8")
        assert run("search", "videos", "--config", "my.yaml", "--dir", "r").code == 0
    assert [config.preset for config in seen] == list(PRESETS)


def test_a_path_through_a_folder_that_is_gone_is_taken_as_it_reads(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    config = laptop()
    config.data.path = str(tmp_path / "gone" / ".." / "videos")
    make_paths_absolute(config)
    assert config.data.path == str(tmp_path / "videos")


def test_a_number_of_workers_below_none_is_refused(run: Run) -> None:
    outcome = run("data", "pack", "videos", "pack", "--workers", "-1")
    assert outcome.code == 2
    assert "--workers must be at least 0, not -1" in outcome.err


def test_data_check_of_one_class_one_video_and_loose_videos(run: Run, tiny_shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    for number, video in enumerate(sorted(tiny_shapes.rglob("*.mp4"))[:2]):
        (tmp_path / "up" / f"{number}.mp4").write_bytes(video.read_bytes())
    for path, videos in (("up", 2), ("up/0.mp4", 1), (".", 2)):
        outcome = run("data", "check", path)
        assert (outcome.code, outcome.out.splitlines()[-1]) == (0, f"{videos} videos: {videos} ok")
        assert run("data", "list", path).code == 0
    (tmp_path / "up" / "short.srt").touch()
    told = run("data", "list", "up", "--json")
    assert json.loads(told.out)["remarks"] == [line.removeprefix("note: ") for line in told.err.splitlines()]
    assert "1 file is not read: 1 .srt" in told.err
    assert json.loads(told.out)["held_out"] == ["val", "test"]


def test_data_list_ends_with_1_where_files_are_missing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("path,label,split\na.mp4,a,train\nb.mp4,b,test\n", encoding="utf-8")
    (tmp_path / "a.mp4").touch()
    outcome = run("data", "list", ".")
    assert outcome.code == 1
    assert "not named: val, which a run holds out of train (data.validation_share)" in outcome.out
    assert json.loads(run("data", "list", ".", "--json").out)["missing"] == ["b.mp4"]
    (tmp_path / "b.mp4").touch()
    assert run("data", "list", ".").code == 0
