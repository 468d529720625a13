"""The examples run, and show what they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import pvnas
from pvnas.deploy.model import save_model
from pvnas.space.operations import unregister_operation

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def example(name: str) -> ModuleType:
    """Import an example by its path: the folder is no package."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_is_tested_here_and_listed() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in SCRIPTS:
        assert f'example("{name}")' in tests
        assert f"`{name}.py`" in listed


def test_training_loop_learns() -> None:
    assert example("training_loop").main() > 0.9


def test_random_genotype_is_within_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    genotype = example("random_genotype").main(most_gmacs=25.0)
    assert pvnas.network_cost(genotype, width=64, clip=(8, 224, 224), classes=400).macs <= 25e9
    assert "T-RC" in capsys.readouterr().out


def test_add_operation_makes_it_a_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    module = example("add_operation")
    try:
        assert module.main([]) == 0
        assert "avg_pool_1x5x5" in capsys.readouterr().out.splitlines()[0]
        assert module.main(["genotype", "random", "--seed", "1"]) == 0
        assert "avg_pool_1x5x5" in capsys.readouterr().out
    finally:
        unregister_operation("avg_pool_1x5x5")


def test_predict_names_the_likeliest_classes(
    tiny_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, genotype = pvnas.load_config("tiny"), pvnas.random_genotype(0)
    classes = tuple(sorted(path.name for path in tiny_shapes.glob("*/")))
    network = pvnas.create_model(
        "pvnas_l", genotype=genotype, num_classes=len(classes), width=config.network.width, stem=config.network.stem
    )
    save_model(tmp_path, network, genotype, classes, config)
    video = next(tiny_shapes.rglob("*.mp4"))
    example("predict").main(str(tmp_path), str(video))
    out = capsys.readouterr().out.splitlines()
    assert out[0].strip() == video.name
    assert len(out) == 4
    assert all(line.split()[-1] in classes for line in out[1:])
