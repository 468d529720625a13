"""The README's section on Python, run as it stands, and what its functions promise beside that."""

import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import pvnas
from pvnas import session
from pvnas.config import RunConfig
from pvnas.presets import PRESETS, tiny
from pvnas.settings import load_config

README = Path(__file__).resolve().parents[1] / "README.md"


def smallest() -> RunConfig:
    """The preset that the README names, in seconds."""
    config = tiny()
    config.preset, config.tensorboard = "laptop", False
    for stage in (config.search, config.train):
        stage.epochs, stage.width, stage.batch.shards = 1, 2, 1
        stage.batch.clips_per_shard = 16
    return config


@pytest.fixture
def here(tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the videos that the README names, to stand in; no page is drawn, which takes most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "laptop", smallest)
    # What hours make of videos and machine has tests of its own.
    monkeypatch.setattr(
        "pvnas.plan.begin.planned_config", lambda _dir, _hours, wishes: load_config("laptop", None, wishes)
    )
    monkeypatch.setattr(session, "write_report", lambda run_dir, *_, **__: run_dir / "report.html")
    shutil.copytree(tiny_shapes, "my_videos")
    for number, video in enumerate(sorted(tiny_shapes.rglob("*.mp4"))[:4]):
        for folder in ("new_videos", "films", f"other_videos/{video.parent.name}"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(video, Path(folder, f"{number}.mp4"))
    return tmp_path


def python_of_the_readme() -> str:
    """Return the indented lines of the section on Python."""
    section = README.read_text(encoding="utf-8").split("## From Python\n")[1].split("\n## ")[0]
    return "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))


@pytest.mark.usefixtures("here")
def test_the_examples_of_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = python_of_the_readme()
    assert set(re.findall(r"pvnas\.(\w+)", text)) >= {"run", "search", "train", "test", "predictions"}
    names: dict[str, Any] = {}
    exec(compile(text, str(README), "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    said = [line.split()[0] for line in printed[1:]]
    assert said[:4] == [f"new_videos/{number}.mp4" for number in range(4)]
    assert sorted(said[4:]) == [f"films/{number}.mp4" for number in range(4)]
    assert Path("runs/my_videos-1h/export/model.onnx").stat().st_size > 1000
    assert names["trained"](torch.zeros(1, 3, 4, 24, 24)).shape == (1, 7)
    assert [y.shape[1] for y in names["maps"](torch.zeros(1, 3, 4, 24, 24))] == names["maps"].feature_info.channels()
    assert names["elsewhere"]["n_videos"] == 4
    assert names["results"]["n_videos"] == 8
    assert names["genotype"] == pvnas.Genotype.load("runs/my_videos-1h/genotype.json")
    assert Path("runs/search/genotype.json").exists()
    assert Path("runs/train/model.safetensors").exists()
    assert names["fast"](torch.zeros(1, 3, 4, 64, 64)).shape == (1, 101)


@pytest.mark.usefixtures("here")
def test_a_run_in_a_thread_leaves_the_process_as_it_was() -> None:
    threads = torch.get_num_threads()
    found: list[dict[str, Any]] = []

    def work() -> None:
        found.append(pvnas.run("my_videos", Path("r"), overrides={"threads": threads + 1}))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0]["n_videos"] == 8
    assert torch.get_num_threads() == threads
    assert pvnas.run("my_videos", "r", overrides={"threads": threads + 1}) == found[0]  # it goes on: all is finished


@pytest.mark.usefixtures("here")
def test_mistakes_are_user_errors() -> None:
    with pytest.raises(pvnas.UserError, match="no folder 'nowhere'"):
        pvnas.run("nowhere")
    with pytest.raises(pvnas.UserError, match="did you mean laptop"):
        pvnas.run("my_videos", preset="lap")
    with pytest.raises(pvnas.UserError, match=r"no field 'train\.widht'"):
        pvnas.search("my_videos", overrides={"train.widht": 3})
    with pytest.raises(pvnas.UserError, match="a whole config needs no preset"):
        pvnas.run(smallest(), preset="tiny")
    with pytest.raises(pvnas.UserError, match="holds no genotype yet"):
        pvnas.train("my_videos", "r")
    with pytest.raises(pvnas.UserError, match="no config file"):
        pvnas.test("r")
    with pytest.raises(pvnas.UserError, match="name its videos, too"):
        pvnas.test("r", out="elsewhere")
    Path("r").mkdir()
    Path("r/config.yaml").write_text("preset: tiny\n", encoding="utf-8")
    with pytest.raises(pvnas.UserError, match=r"pvnas test DATA --dir r --out FOLDER --test\.temporal_views \.\.\.$"):
        pvnas.test("r", overrides={"test.temporal_views": 3})
    assert not Path("runs").exists()


def test_the_function_search_survives_the_package_search() -> None:
    import pvnas.search.stage

    assert pvnas.search.stage.SearchStage
    with pytest.raises(pvnas.UserError, match="no folder 'nowhere'"):
        pvnas.search("nowhere")


@pytest.mark.usefixtures("here")
def test_a_run_directory_that_cannot_be_is_one_line() -> None:
    Path("notes.txt").touch()
    for name, why in {"notes.txt": "File exists", "notes.txt/r": "Not a directory"}.items():
        with pytest.raises(
            pvnas.UserError, match=rf"^{name}: cannot be made \({why}\); name a run directory with --dir$"
        ):
            pvnas.run("my_videos", name)


def test_on_windows_what_runs_elsewhere_only_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    for name in ("run", "train", "test", "predict", "predictions"):
        with pytest.raises(pvnas.UserError, match="pvnas runs on Linux and macOS, not on Windows"):
            getattr(pvnas, name)
    assert pvnas.Genotype
