"""Two operations from outside the package go all the way: search, derivation, training, test, report, prediction."""

import json

import pytest
from torch import nn

from pvnas import pipeline
from pvnas.deploy.predictions import predict
from pvnas.errors import UserError
from pvnas.presets import tiny
from pvnas.runtime.checkpoint import load_tensors
from pvnas.search.derive import derive
from pvnas.space.cost import network_cost
from pvnas.space.genotype import Genotype, random_genotype
from pvnas.space.layers import Rectified
from pvnas.space.operations import operations_of, register_operation, unregister_operation

AVERAGE, CONVOLUTION = "avg_pool_1x5x5", "conv_1x5x5"


@pytest.fixture
def two_more_operations():
    @register_operation(AVERAGE, has_parameters=False, label="avg pool 5×5", colour="#2f7d32")
    def average(channels, stride, layers, *, affine):
        return layers.avg_pool((1, 5, 5), (1, stride, stride), (0, 2, 2), count_include_pad=False)

    @register_operation(CONVOLUTION, label="conv 5×5")
    def convolution(channels, stride, layers, *, affine):
        conv = layers.conv(channels, channels, (1, 5, 5), stride=(1, stride, stride), padding=(0, 2, 2), bias=False)
        return Rectified(nn.ReLU(), conv, layers.norm(channels, affine=affine))

    yield
    unregister_operation(AVERAGE)
    unregister_operation(CONVOLUTION)


@pytest.mark.usefixtures("two_more_operations")
def test_from_the_search_to_a_prediction(tiny_shapes, tmp_path):
    config = tiny()
    config.data.path, config.tensorboard = str(tiny_shapes), False
    config.search.layout, config.search.width, config.clip.frames = "S-NC T-RC", 2, 2
    config.train.layout, config.train.width = "S-NC*K T-RC", 2
    pipeline.search(config, tmp_path / "search")
    alphas = load_tensors(tmp_path / "search" / "alphas.safetensors")
    found = {c: alphas[f"epoch_{config.search.epochs:03d}/{c}"] for c in ("S-NC", "T-RC")}
    assert found["S-NC"].shape == (14, 8)
    assert found["T-RC"].shape == (14, 10)
    assert (found["S-NC"][:, 6:] != alphas["epoch_000/S-NC"][:, 6:]).all()  # they have been searched

    for category, alpha in found.items():  # as if the search had liked them: one on every other edge
        for edge, name in enumerate((AVERAGE, CONVOLUTION) * 7):
            alpha[edge, operations_of(category).index(name)] += 5.0
    genotype = derive(found)
    kept = {edge.operation for _, _, edge in genotype.edges()}
    assert kept == {AVERAGE, CONVOLUTION}
    assert 0 < genotype.parameter_free()["total"] < 16
    path = tmp_path / "genotype.json"
    path.write_text(genotype.to_json())
    assert Genotype.load(path) == genotype

    pipeline.train(config, tmp_path / "run", path)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "avg pool 5×5" in page
    assert "conv 5×5" in page
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["n_videos"] == 8
    cost = network_cost(genotype, config.network, clip=(2, 32, 32), classes=8)
    tensors = load_tensors(tmp_path / "run" / "model.safetensors")
    learnt = [tensor for name, tensor in tensors.items() if "running" not in name and "num_batches" not in name]
    assert cost.params == sum(tensor.numel() for tensor in learnt)
    video = next(path for path in tiny_shapes.rglob("*") if path.suffix in (".mp4", ".avi"))
    (prediction,) = predict([video], tmp_path / "run")
    assert prediction


@pytest.mark.usefixtures("two_more_operations")
def test_random_genotypes_draw_them():
    drawn = {edge.operation for seed in range(30) for _, _, edge in random_genotype(seed).edges()}
    assert {AVERAGE, CONVOLUTION} <= drawn


def test_where_they_are_not_registered_a_genotype_with_them_is_refused_by_name(tmp_path):
    text = random_genotype(0).to_json().replace("sep_conv_1x3x3", "conv_9x9")
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(UserError, match=r"unknown operation '.*conv_9x9'; known: identity"):
        Genotype.load(tmp_path / "g.json")
