"""Exported networks say in other programs what they say here, or the file is not written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from test_rank4 import learnt, with_every_operation

import pvnas
from pvnas import cli
from pvnas.config import ClipConfig, RunConfig, TestConfig
from pvnas.deploy import export as exports
from pvnas.deploy.export import Form, OnnxNetwork, OnnxSession, export_model, weights_digest
from pvnas.deploy.model import load_model, save_model
from pvnas.errors import UserError

onnx = pytest.importorskip("onnx", reason="pip install 'pvnas[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'pvnas[export]'")


LAYOUT = "S-NC S-RC T-NC T-RC"


def model_of(folder: Path, first: int, stem: str, clip: ClipConfig) -> Path:
    """Write a model with every operation whose norms have learnt something."""
    genotype = with_every_operation(first)
    network = learnt(genotype, stem, channels=clip.channels, layout=LAYOUT)
    config = RunConfig(stem=stem, clip=clip, test=TestConfig(crop=37, short_side=40))
    config.train.width, config.train.layout = 6, LAYOUT
    folder.mkdir()
    save_model(folder, network, genotype, tuple("abcde"), config)
    return folder


def views(clip: ClipConfig, size: tuple[int, int] = (37, 42)) -> torch.Tensor:
    frames = clip.frames * (1 if clip.input == "rgb" else 2)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (9, clip.colours, frames, *size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    "first, stem, frames, input, form",
    [
        (0, "stride2", 1, "rgb", Form()),
        (4, "stride4", 8, "rgb", Form()),
        (6, "stride4-time2", 5, "flow", Form(pixels=True)),
        (1, "stride2-time", 2, "both", Form("torch", pixels=True)),
    ],
)
def test_a_file_says_what_the_network_says(
    first: int, stem: str, frames: int, input: str, form: Form, tmp_path: Path
) -> None:
    clip = ClipConfig(input=input, frames=frames)
    folder = model_of(tmp_path / "model", first, stem, clip)
    out = tmp_path / "deep" / form.file_name
    row = export_model(load_model(folder), folder, form, out, views(clip))
    assert row["same_top1"] == row["clips"] == 9
    assert row["largest_difference"] < 1e-4
    assert row["bytes"] == out.stat().st_size
    assert [path.name for path in out.parent.iterdir()] == [form.file_name], "nothing else is left there"
    if form.format == "torch":
        assert torch.export.load(out).module() is not None
        return
    about = OnnxSession(out).about
    assert about["weights_sha256"] == weights_digest(folder)
    assert about["model"]["classes"] == list("abcde")
    assert about["shape"][0] is None
    made = onnx.shape_inference.infer_shapes(onnx.load(out), strict_mode=True)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in made.graph.value_info}
    assert len(ranks) > 40
    assert max(ranks.values()) <= 4, {name for name, rank in ranks.items() if rank > 4}
    assert str(tmp_path.parent) not in str(made), "nothing tells of the machine"


def test_what_differs_gets_no_file(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(model_folder)
    out, clips = tmp_path / "model.pt2", torch.zeros(8, 3, 4, 24, 24, dtype=torch.uint8)
    monkeypatch.setattr(exports, "_expected", lambda network, views_NCTHW, clip, pixels: torch.randn(8, 8))
    with pytest.raises(UserError, match="not written: scores of the exported network differ"):
        export_model(model, model_folder, Form("torch"), out, clips)
    with pytest.raises(UserError, match="tried on 8 clips at least, and here are 7"):
        export_model(model, model_folder, Form("torch"), out, clips[:7])
    monkeypatch.setattr(exports, "_expected", lambda network, views_NCTHW, clip, pixels: torch.zeros(8, 8))
    monkeypatch.setattr(exports, "_runner", lambda path, form: lambda given: torch.full((len(given), 8), torch.nan))
    with pytest.raises(UserError, match="not written: scores of the exported network differ by inf"):
        export_model(model, model_folder, Form("torch"), out, clips)
    monkeypatch.setattr(exports, "_expected", lambda network, views_NCTHW, clip, pixels: torch.full((8, 8), torch.nan))
    with pytest.raises(UserError, match="scores are not numbers"):
        export_model(model, model_folder, Form("torch"), out, clips)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_told_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    known = builtins.__import__

    def lacking(name: str, *rest: object) -> object:
        if name == "onnxscript":
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(UserError, match=r"onnxscript is not installed; .* pip install 'pvnas\[export\]'"):
        exports.need_packages(Form())
    exports.need_packages(Form("torch"))


def test_a_run_is_exported_tested_and_predicts(
    tiny_shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The whole way of a user: run, export, test by the export, eight bits, predictions, and what the page says."""
    run_dir = tmp_path / "run"
    genotype = tmp_path / "genotype.json"
    genotype.write_text(pvnas.random_genotype(0).to_json())
    pvnas.train(tiny_shapes, run_dir, genotype=genotype, preset="tiny", overrides={"train.epochs": 1})
    results = json.loads((run_dir / "results.json").read_text())

    def said(*words: str) -> str:
        capfd.readouterr()
        assert cli.main(list(words)) == 0
        return capfd.readouterr().out

    assert "the class is the same on" in said("export", str(run_dir))
    found = json.loads(said("test", str(run_dir), "--runtime", "onnx", "--json"))
    assert found["top1"] == results["top1"]
    assert found["same"] == found["videos"] == results["n_videos"]
    said("export", str(run_dir), "--int8")
    rows = {row["file"]: row for row in json.loads((run_dir / "export/exports.json").read_text())}
    assert set(rows) == {"model.onnx", "model-int8.onnx"}
    assert rows["model-int8.onnx"]["val_top1"] >= 0
    eight = onnx.load(run_dir / "export/model-int8.onnx").graph.node
    assert sum(node.op_type == "QuantizeLinear" for node in eight) > 20
    page = (run_dir / "report.html").read_text()
    assert "Exported files" in page
    assert "model-int8.onnx" in page
    video = str(min(tiny_shapes.rglob("*.mp4")))
    same = [
        json.loads(said("predict", video, "--dir", str(run_dir), "--json", *more))
        for more in ((), ("--runtime", "onnx"))
    ]
    scores = [{each["class"]: each["score"] for each in answer[0]["classes"]} for answer in same]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert "onnx" not in json.loads((run_dir / "results.json").read_text())

    # Of other weights an export is no longer.
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    model = load_model(other)
    with torch.no_grad():
        model.network.classifier.bias += 1  # type: ignore[union-attr, operator]
    save_model(other, model.network, model.genotype, model.classes, model.config)
    with pytest.raises(UserError, match="exported of other weights"):
        OnnxNetwork(other / "export/model.onnx", other)
    with pytest.raises(UserError, match="of another form than its name says"):
        OnnxNetwork(run_dir / "export/model-int8.onnx", run_dir)


@pytest.mark.parametrize(
    "words, why",
    [
        (["--format", "torch", "--int8"], "--int8 is for onnx"),
        (["--pixels", "--int8"], "leave --format and --pixels away"),
        (["--out", "mine.onnx"], "there is a file of this name"),
        (["--out", "model.txt"], "--out writes onnx; name it so: --out model.onnx"),
        ([], "holds a network without its videos; name some to try it on: --videos"),
        (["--videos", "none.mp4"], "no such file"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    words: list[str],
    why: str,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.onnx").write_text("mine")
    capfd.readouterr()
    assert cli.main(["export", str(model_folder), *words]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    assert why in err


def test_a_model_alone_is_tried_on_videos_that_are_named(
    model_folder: Path, tiny_shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "network.pt2"
    words = [
        "export",
        str(model_folder),
        "--format",
        "torch",
        "--videos",
        str(tiny_shapes),
        "--out",
        str(out),
        "--json",
    ]
    capfd.readouterr()
    assert cli.main(words) == 0
    assert json.loads(capfd.readouterr().out)["clips"] == 16
    assert not (model_folder / "export").exists()
