"""The search stage on real videos with a network of a few channels."""

import json
import warnings
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from catalogs import read_catalog
from overwriting import Overwriting
from pvnas.bench.search import Shape, make_batch
from pvnas.bench.search import make_stage as make_bench_stage
from pvnas.config import AlphaOptimizerConfig, BatchConfig, RunConfig
from pvnas.data.clips.loader import Batch
from pvnas.data.dataset import VideoDataset
from pvnas.errors import UserError
from pvnas.presets import tiny
from pvnas.runtime.checkpoint import digest, load_checkpoint, load_tensors
from pvnas.runtime.gpu import FiniteCheck
from pvnas.runtime.loop import run_epochs
from pvnas.runtime.progress import Progress
from pvnas.runtime.signals import Interrupted, StopRequest
from pvnas.search.derive import derive
from pvnas.search.history import final_epoch, genotype_of_epoch, read_history
from pvnas.search.stage import SearchStage
from pvnas.search.step import StepBatches
from pvnas.space.genotype import Genotype
from pvnas.training.log import EpochLog

CPU = torch.device("cpu")
# Everything that a search on few videos may do otherwise than the paper; alpha begins to move within the first epoch.
FEW_VIDEOS = {
    "alphas": AlphaOptimizerConfig(lr=0.01, beta1=0.5, start_epoch=0.375, temperature=4.0, final_temperature=0.5),
    "drop_path": 0.3,
    "derive_epochs": 2,
}


def small_config(**search) -> RunConfig:
    config = tiny()
    config.search.layout, config.search.width, config.clip.frames = "S-NC T-RC", 2, 2
    config.search.augment.short_side_min, config.search.augment.short_side_max, config.search.augment.crop = 14, 16, 12
    for name, value in search.items():
        setattr(config.search, name, value)
    return config


@pytest.fixture(scope="module")
def sources(tiny_shapes):
    catalog, config = read_catalog(tiny_shapes), tiny()
    parts = [VideoDataset(catalog.select(split), config.data, 16) for split in ("train", "val")]
    for part in parts:
        part.prepare_cache()
    return parts


def make_stage(config, sources, run_dir):
    log = EpochLog(run_dir, Progress(), tensorboard=False)
    return SearchStage(config, *sources, run_dir, CPU, log)


def run(config, sources, run_dir, stop=None):
    """Run the stage to its end, or to the stop, from whatever checkpoint there is."""
    stage = make_stage(config, sources, run_dir)
    checkpoint = load_checkpoint(run_dir / "checkpoints")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # so small a search may well collapse
        run_epochs(stage, run_dir / "checkpoints", checkpoint, stop or StopRequest(), Progress(), checkpoint_minutes=99)
    return stage


def copies(parameters):
    return {name: p.detach().clone() for name, p in parameters.items()}


def test_each_half_step_leaves_the_others_parameters_untouched(sources, tmp_path):
    stage = make_stage(small_config(), sources, tmp_path)
    batch = next(stage.batches(0, 0))
    seen = []

    def watch(optimizer, name):
        step = optimizer.step

        def watched(*args, **kwargs):
            before = copies(stage.network.architecture_parameters()), copies(stage.network.weight_parameters())
            step(*args, **kwargs)
            after = copies(stage.network.architecture_parameters()), copies(stage.network.weight_parameters())
            moved = [any(not torch.equal(a[n], b[n]) for n in a) for a, b in zip(before, after, strict=True)]
            seen.append((name, *moved))

        optimizer.step = watched

    watch(stage.alphas.optimizer, "alpha")
    watch(stage.weights.optimizer, "weight")
    buffers = {n: b.clone() for n, b in stage.network.named_buffers()}
    stage.step(0, 0, batch)
    assert seen == [("alpha", True, False), ("weight", False, True)]
    assert any(not torch.equal(b, buffers[n]) for n, b in stage.network.named_buffers())
    ids = [{id(p) for p in optimizer.parameters} for optimizer in (stage.alphas, stage.weights)]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == {id(p) for p in stage.network.parameters()}


@pytest.mark.parametrize(
    "search, same_batch",
    [
        ({}, True),
        ({"half_steps": "next"}, False),
        ({"half_steps": "joint"}, True),
        ({"objective": "bilevel-first"}, False),
        ({"objective": "bilevel-second"}, False),
    ],
)
def test_every_objective_makes_a_step_on_the_batches_it_should(search, same_batch, sources, tmp_path):
    stage = make_stage(small_config(**search), sources, tmp_path)
    batch = next(stage.batches(0, 0))
    assert (batch.alpha is batch.weight) == same_batch
    before = copies(stage.network.architecture_parameters())
    measures = stage.step(0, 0, batch)
    assert torch.isfinite(measures["loss"])
    assert any(not torch.equal(a, before[c]) for c, a in stage.network.architecture_parameters().items())
    if stage.alpha_videos is not None:
        parts = [{v.path for v in s.catalog.videos} for s in (stage.alpha_videos, stage.weight_videos)]
        assert not parts[0] & parts[1]
        assert set(batch.alpha.paths) <= parts[0]
        assert set(batch.weight.paths) <= parts[1]


@pytest.mark.parametrize(
    "search, shards, shares",
    [
        ({}, 1, True),
        ({}, 2, False),
        ({"half_steps": "next"}, 1, False),
        ({"half_steps": "joint"}, 1, False),
        ({"objective": "bilevel-first"}, 1, False),
        ({"objective": "bilevel-second"}, 1, False),
    ],
)
def test_passes_share_work_only_where_there_are_two_of_the_same_clips(
    search, shards, shares, sources, tmp_path, monkeypatch
):
    config = small_config(**search)
    config.search.batch.shards = shards
    entered = []

    @contextmanager
    def noted(network):
        entered.append(network)
        yield

    monkeypatch.setattr("pvnas.search.step.shared_passes", noted)
    stage = make_stage(config, sources, tmp_path)
    stage.step(0, 0, next(stage.batches(0, 0)))
    assert entered == [stage.network] * shares


def test_a_fresh_batch_for_each_half_step_uses_every_video_once(sources, tmp_path):
    stage = make_stage(small_config(half_steps="next"), sources, tmp_path)
    pairs = list(stage.batches(0, 0))
    assert len(pairs) == stage.steps() == 4
    paths = [p for pair in pairs for half in (pair.alpha, pair.weight) for p in half.paths]
    assert len(set(paths)) == len(paths) == 32
    later = list(stage.batches(0, 2))
    assert torch.equal(later[0].alpha.clips_NCTHW, pairs[2].alpha.clips_NCTHW)


def test_what_a_search_writes(sources, tmp_path):
    stage = run(small_config(), sources, tmp_path)
    history = load_tensors(tmp_path / "alphas.safetensors")
    assert sorted(history) == [f"epoch_{e:03d}/{c}" for e in (0, 1, 2) for c in ("S-NC", "T-RC")]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for epoch, line in enumerate(lines, start=1):
        genotype = Genotype.load(tmp_path / "genotypes" / f"epoch_{epoch:03d}.json")
        alphas = {c: history[f"epoch_{epoch:03d}/{c}"] for c in ("S-NC", "T-RC")}
        assert genotype == derive(alphas)  # of this epoch's last update, not of the one before
        assert line["parameter_free"] == genotype.parameter_free() == genotype.about["collapse"]["parameter_free"]
    assert final_genotype(stage) == genotype
    assert not torch.equal(history["epoch_001/S-NC"], history["epoch_002/S-NC"])


def test_an_earlier_epoch_can_be_taken_without_another_search(sources, tmp_path):
    stage = run(small_config(stop_epoch=1), sources, tmp_path)
    assert final_genotype(stage) == Genotype.load(tmp_path / "genotypes" / "epoch_001.json")
    stage.config.search.stop_epoch = 9
    with pytest.raises(UserError, match="lacks epoch 9"):
        final_genotype(stage)


def test_a_search_on_few_videos_writes_what_it_did(sources, tmp_path):
    stage = run(small_config(**FEW_VIDEOS), sources, tmp_path)
    history = load_tensors(tmp_path / "alphas.safetensors")
    temperatures = {1: 2**0.5, 2: 0.5}
    for epoch, epochs in ((1, [1]), (2, [1, 2])):
        genotype = Genotype.load(tmp_path / "genotypes" / f"epoch_{epoch:03d}.json")
        shares = {
            c: sum((history[f"epoch_{e:03d}/{c}"].double() / temperatures[e]).softmax(-1) for e in epochs) / len(epochs)
            for c in ("S-NC", "T-RC")
        }
        assert genotype == derive({category: share.log() for category, share in shares.items()})
        assert genotype.about["mean_of_epochs"] == epochs
        assert genotype.about["temperature"] == pytest.approx(temperatures[epoch])
        entropy = genotype.about["collapse"]["alpha_entropy"]["S-NC"]
        assert entropy == pytest.approx(float(-(shares["S-NC"] * shares["S-NC"].log()).sum(-1).mean()))
    stage.config.search.stop_epoch = 1
    assert final_genotype(stage).about["mean_of_epochs"] == [1]


def test_validation_sees_the_temperature_of_its_epoch_and_every_operation(sources, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("pvnas.search.stage.validate", lambda network, *_: seen.append(network.relaxation) or {})
    stage = run(small_config(**FEW_VIDEOS), sources, tmp_path)
    assert [float(relaxation.temperature) for relaxation in seen] == pytest.approx([2**0.5, 0.5])
    assert not any(relaxation.factors for relaxation in seen)
    assert stage.network.relaxation is None


@pytest.mark.parametrize("search", [{"half_steps": "next"}, {"objective": "bilevel-first"}])
def test_alpha_has_batches_of_its_own_from_its_first_step_on(search, sources, tmp_path):
    plain = make_stage(small_config(**search), sources, tmp_path)
    waiting = make_stage(small_config(**FEW_VIDEOS | search), sources, tmp_path)
    first = next(step for step in range(plain.steps()) if step / plain.steps() >= 0.375)
    for step, (batch, as_ever) in enumerate(zip(waiting.batches(0, 0), plain.batches(0, 0), strict=True)):
        assert batch.weight.paths == as_ever.weight.paths
        assert batch.alpha.paths == (as_ever.alpha if step >= first else as_ever.weight).paths
        assert (batch.alpha is batch.weight) == (step < first)
    assert next(waiting.batches(0, first + 1)).alpha.paths == [*plain.batches(0, 0)][first + 1].alpha.paths


def final_genotype(stage):
    return genotype_of_epoch(stage.config, final_epoch(stage.config), *read_history(stage.run_dir))


def result(stage):
    return digest(stage.tensors(), final_genotype(stage).to_json())


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"half_steps": "next"},
        {"objective": "bilevel-second"},
        FEW_VIDEOS,
        # Stopped before alpha moves: Adam has no state yet.
        FEW_VIDEOS | {"objective": "bilevel-first", "alphas": replace(FEW_VIDEOS["alphas"], start_epoch=1.6)},
    ],
)
def test_a_stopped_search_resumes_at_its_step_and_ends_in_the_same_bits(search, sources, tmp_path, stop_after):
    config = small_config(**search, batch=BatchConfig(shards=2, clips_per_shard=4))
    whole = run(config, sources, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(config, sources, tmp_path / "parts", stop_after(3))
    checkpoint = load_checkpoint(tmp_path / "parts" / "checkpoints")
    assert checkpoint.state["step"] > 0
    resumed = run(config, sources, tmp_path / "parts")
    assert result(resumed) == result(whole)
    for name in ("metrics.jsonl",):
        lines = [
            [
                {k: v for k, v in json.loads(line).items() if k not in ("seconds", "clips_per_s", "wait_share")}
                for line in (folder / name).read_text().splitlines()
            ]
            for folder in (tmp_path / "whole", tmp_path / "parts")
        ]
        assert lines[0] == lines[1]


def pressed_config(macs: int) -> RunConfig:
    config = small_config(batch=BatchConfig(shards=2, clips_per_shard=4), epochs=3)
    config.train.layout, config.train.width = "S-NC*K T-RC", 8
    config.search.alphas.lr = 0.05
    config.budget.macs, config.budget.pressure = macs, True
    return config


def test_a_search_that_feels_a_budget_promises_less_and_resumes_in_the_same_bits(sources, tmp_path, stop_after):
    loose = run(pressed_config(10**9), sources, tmp_path / "loose")
    lines = [json.loads(line) for line in (tmp_path / "loose" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["pressure_macs"] == 0.0
    tight = pressed_config(int(0.75 * lines[0]["expected_macs"]))
    whole = run(tight, sources, tmp_path / "whole")
    pressed = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < pressed[0]["pressure_macs"] < pressed[-1]["pressure_macs"]
    assert pressed[-1]["expected_macs"] < lines[-1]["expected_macs"]
    assert not torch.equal(*(stage.tensors()["alpha_optimizer/S-NC/exp_avg_sq"] for stage in (loose, whole)))
    with pytest.raises(Interrupted):
        run(tight, sources, tmp_path / "parts", stop_after(3))
    resumed = run(tight, sources, tmp_path / "parts")
    assert result(resumed) == result(whole)


def test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_videos(sources, tmp_path):
    stage = make_stage(small_config(), sources, tmp_path)
    with torch.no_grad():
        stage.network.classifier.weight.fill_(float("nan"))
    weights = copies(stage.network.weight_parameters())
    with pytest.raises(UserError, match="not a number"):
        run_epochs(stage, tmp_path / "checkpoints", None, StopRequest(), Progress(), checkpoint_minutes=99)
    assert all(torch.equal(p, weights[n]) or "classifier" in n for n, p in stage.network.weight_parameters().items())
    assert load_checkpoint(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("too_large", [lambda: torch.empty(2**55), lambda: raise_(torch.OutOfMemoryError("CUDA"))])
def test_want_of_memory_says_what_to_type(too_large, sources, tmp_path, monkeypatch):
    monkeypatch.setattr("pvnas.search.stage.search_step", lambda *_, **__: too_large())
    with pytest.raises(UserError, match=r"^search: a step asks for more memory than there is; --search\.checkpointing"):
        run(small_config(), sources, tmp_path)


def test_other_errors_of_a_step_are_not_taken_for_want_of_memory(sources, tmp_path, monkeypatch):
    monkeypatch.setattr("pvnas.search.stage.search_step", lambda *_, **__: raise_(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        run(small_config(), sources, tmp_path)


def raise_(error):
    raise error


def test_a_checkpointed_search_ends_in_the_same_bits(sources, tmp_path):
    plain, checkpointed = (
        run(small_config(checkpointing=each, epochs=1), sources, tmp_path / str(each)) for each in (False, True)
    )
    assert all(cell.checkpointing for cell in checkpointed.network.cells)
    expected = plain.tensors()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in checkpointed.tensors().items())


def test_a_bilevel_split_that_leaves_nothing_is_refused(sources, tmp_path):
    with pytest.raises(UserError, match="bilevel_share"):
        make_stage(small_config(objective="bilevel-first", bilevel_share=0.001), sources, tmp_path)


class HostReads(TorchDispatchMode):
    """Collects the tensors whose value Python asks for: on a GPU each would wait for all work before it."""

    def __init__(self):
        super().__init__()
        self.read = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.read.append(args[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", ["S-NC", "S-NC S-RC T-NC T-RC"])
@pytest.mark.parametrize("late, waits", [(False, 2), (True, 0)])
def test_a_step_waits_for_two_answers_or_on_a_gpu_for_none(layout, late, waits, sources, tmp_path):
    stage = make_stage(small_config(layout=layout), sources, tmp_path)
    stage.finite = LateCheck() if late else stage.finite
    batch = next(stage.batches(0, 0))
    stage.step(0, 0, batch)
    counters = {state["step"].data_ptr() for state in stage.alphas.optimizer.state.values()}  # Adam's own, on the CPU
    with HostReads() as reads:
        stage.step(0, 1, batch)
    with_the_host = counters | {x.data_ptr() for x in stage.finite.answers} if late else counters
    waited = [x for x in reads.read if x.data_ptr() not in with_the_host]
    # Are alpha's gradients finite? What is the loss?
    assert [x.dtype for x in waited] == [torch.bool, torch.float64][:waits]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recorded", [True, False])
def test_the_host_never_waits_for_a_gpu_in_a_step(precision, recorded):
    shape = Shape(width=8, batch=4, device="cuda", precision=precision)
    stage, pinned = make_bench_stage(shape, plain=False), make_batch(shape)
    stage.graphs = stage.graphs if recorded else None
    for step in range(2):  # called, then recorded
        stage.step(0, step, pinned)
    torch.cuda.set_sync_debug_mode("error")
    try:
        measures = stage.step(0, 2, pinned)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stage.finite.settle()
    assert float(measures["clips"]) == shape.batch


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"half_steps": "next"},
        {"half_steps": "joint"},
        {"objective": "bilevel-first"},
        {"objective": "bilevel-second"},
        FEW_VIDEOS | {"alphas": replace(FEW_VIDEOS["alphas"], start_epoch=0.1)},  # from the second step on
    ],
)
def test_nothing_is_read_from_what_a_later_half_step_overwrites(search, sources, tmp_path):
    found = []
    for overwriting in (True, False):
        config = small_config(batch=BatchConfig(shards=1, clips_per_shard=4), **search)
        stage = make_stage(config, sources, tmp_path)
        stage.graphs = Overwriting() if overwriting else None
        losses = [
            stage.step(0, step, batch)["loss"] for step, batch in zip(range(3), stage.batches(0, 0), strict=False)
        ]
        found.append([*losses, *stage.network.state_dict().values()])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_half_steps_change_no_bit():
    shape, found = Shape(width=8, batch=4, device="cuda", precision="bf16"), []
    for recorded in (True, False):
        stage, batch = make_bench_stage(shape, plain=False), make_batch(shape)
        assert stage.graphs is not None
        stage.graphs = stage.graphs if recorded else None
        losses = [stage.step(0, step, batch)["loss"].cpu() for step in range(4)]
        found.append([*losses, *(tensor.cpu() for tensor in stage.network.state_dict().values())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_no_number_is_in_no_checkpoint_where_it_is_noticed_late(sources, tmp_path):
    stage = make_stage(small_config(), sources, tmp_path)
    stage.finite = LateCheck()
    with torch.no_grad():
        stage.network.classifier.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"alpha is not a number in epoch 1, step 1 \(videos \w"):
        run_epochs(stage, tmp_path / "checkpoints", None, StopRequest(), Progress(), checkpoint_minutes=0)
    assert load_checkpoint(tmp_path / "checkpoints") is None


class LateCheck(FiniteCheck):
    """What a GPU does; the answers are copies, which lie with the host there, and have always arrived."""

    def __init__(self):
        super().__init__(torch.device("cuda"))
        self.answers, self.synchronize = [], lambda: None

    def _ask(self, question, answer):
        self.answers.append(answer.clone())
        self._asked.append((self.step, question, self.answers[-1], self))


def test_half_steps_that_share_a_batch_bring_it_to_the_device_once(sources, tmp_path, monkeypatch):
    stage = make_stage(small_config(), sources, tmp_path)
    batch = next(stage.batches(0, 0)).weight
    moved = []
    monkeypatch.setattr(Batch, "to", lambda self, device: moved.append(self) or self)
    stage.step(0, 0, StepBatches(batch, batch))
    assert len(moved) == 1
    other = replace(batch)
    stage.step(0, 1, StepBatches(other, batch))
    assert [id(each) for each in moved[1:]] == [id(other), id(batch)]
