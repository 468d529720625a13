"""The processes of a run: who they are, what they tell each other, and which of them is lost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from processes import joined, place_by_slurm
from pvnas.errors import UserError
from pvnas.runtime.distributed import ALONE, World, place_of
from pvnas.runtime.tree_sum import TreeSum, _joined, _pushed

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ALONE),
        (TORCHRUN, World(3, 8, 1, 2)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, World(1, 4, 0, 1)),  # a PyTorchJob of pods with one process each
        (SLURM, World(5, 7, 1, 2)),
        (SLURM | {"SLURM_PROCID": "6", "SLURM_LOCALID": "0", "SLURM_NODEID": "3"}, World(6, 7, 0, 1)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, ALONE),  # `sbatch` with one task, and a shell inside a job
        (SLURM | TORCHRUN, World(3, 8, 1, 2)),  # torchrun inside of a job
    ],
    ids=["none", "torchrun", "pytorchjob", "srun", "last node", "one task", "torchrun in a job"],
)
def test_a_process_finds_its_place_in_its_environment(environment: dict[str, str], expected: World) -> None:
    assert place_of(environment) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"RANK": "8"},
        {"WORLD_SIZE": ""},
        {"RANK": "one"},
        {"LOCAL_RANK": "2"},
        {"RANK": "-1"},
        {"LOCAL_WORLD_SIZE": "9"},
    ],
    ids=lambda wrong: "=".join(*wrong.items()),
)
def test_no_place_is_a_mistake_in_one_line(wrong: dict[str, str]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(UserError, match=f"{name}={value}.*torchrun"):
        place_of(TORCHRUN | wrong)


@given(n=st.integers(0, 200), size=st.integers(1, 40))
def test_every_part_belongs_to_one_process_and_none_has_two_more_than_another(n: int, size: int) -> None:
    parts = [World(rank, size).part(n) for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(shards=st.integers(1, 40), data=st.data())
def test_partial_sums_of_any_processes_end_in_the_sum_of_one(shards: int, data: st.DataObject) -> None:
    processes = data.draw(st.sampled_from([n for n in range(1, shards + 1) if shards % n == 0]))
    values = torch.rand(shards, 3, generator=torch.Generator().manual_seed(shards)) * torch.logspace(-6, 6, 3)
    alone = TreeSum()
    for value in values:
        alone.add([value])
    nodes = []
    for rank in range(processes):
        part = World(rank, processes).part(shards)
        tree = TreeSum(first=part.start)
        for shard in part:
            tree.add([values[shard]])
        assert len(tree._nodes) <= 2 * shards.bit_length()
        nodes += tree._nodes
    assert torch.equal(_joined(_pushed(nodes))[0], alone.total()[0])


def test_two_processes_tell_each_other_everything() -> None:
    ended = joined("""
        with joined_world(config) as world:
            assert world.exchange({"rank": rank, "x": 0.1}) == [{"rank": 0, "x": 0.1}, {"rank": 1, "x": 0.1}]
            assert world.any(rank == 1, False, True) == [True, False, True]
            parts = world.gather(torch.full((rank + 1, 2), float(rank)))
            assert [p.tolist() for p in parts] == [[[0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]
            assert world.from_first(b"abc" if rank == 0 else None) == b"abc"
            assert world.first_does(lambda: [rank, "first"]) == [0, "first"]
            assert world.together(lambda: rank) == rank
            with joined_world(config) as again:
                assert again is world
            print(world.names[1 - rank])
    """)
    assert [e.returncode for e in ended] == [0, 0], ended
    assert ended[0].stdout.startswith("process 1 (pid ")


def test_tasks_of_slurm_find_each_other_by_its_variables_alone() -> None:
    ended = joined(
        """
        with joined_world(config) as world:
            print(world.exchange(rank), world.local_rank, world.local_size)
        """,
        place=place_by_slurm,
    )
    assert [e.stdout.strip() for e in ended] == ["[0, 1] 0 2", "[0, 1] 1 2"], ended


def test_sums_over_two_processes_are_those_of_one_to_the_bit() -> None:
    """Three shards each: the tree joins across the processes; two types, sizes that two do not divide."""
    code = """
        torch.manual_seed(0)
        lists = [[torch.randn(5, 3) * 1e3**i, torch.randn(7).double(), torch.randn(())] for i in range(6)]
        alone = TreeSum()
        for tensors in lists:
            alone.add(tensors)
        with joined_world(config) as world:
            tree = TreeSum(world, world.part(6).start)
            for shard in world.part(6):
                tree.add(lists[shard])
            total = tree.total()
        assert [t.shape for t in total] == [t.shape for t in lists[0]]
        assert [t.dtype for t in total] == [t.dtype for t in lists[0]]
        print(all(map(torch.equal, total, alone.total())), all(map(torch.allclose, total, alone.total())))
    """
    assert [e.stdout.split() for e in joined(code)] == [["True", "True"]] * 2
    fast = joined("config.determinism = 'fast'\n" + code.replace("\n        ", "\n"))
    assert [e.stdout.split()[1:] for e in fast] == [["True"]] * 2, fast


def test_what_ends_one_process_ends_all_and_the_first_says_it() -> None:
    ended = joined("""
        def fail():
            if rank == 1:
                raise kind("no such video")
        def full():
            raise kind("disk full")
        with joined_world(config) as world:
            for kind in (UserError, Interrupted, FloatingPointError):
                for tell in (lambda: world.together(fail), lambda: world.together(fail, patient=True)):
                    try:
                        tell()
                    except kind as error:
                        print(error, getattr(error, "said_elsewhere", None))
                try:
                    world.first_does(full)
                except kind as error:
                    print(error)
    """)
    assert [e.stdout.splitlines() for e in ended] == [
        ["no such video False", "no such video False", "disk full"] * 3,
        ["no such video True", "no such video True", "disk full"] * 3,
    ], ended


@pytest.mark.parametrize("how", ["killed", "hangs"])
def test_a_process_that_is_lost_is_named_within_the_deadline(how: str) -> None:
    ended = joined(
        f"""
        config.lost_after = 3.0
        with joined_world(config) as world:
            world.any(True)
            if rank == 1 and {how == "killed"}:
                os.kill(os.getpid(), 9)
            if rank == 1:
                time.sleep(600)
            started = time.monotonic()
            try:
                world.any(True)
            except LostProcessError as error:
                print(error, error.said_elsewhere, sep="\\n")
                print(time.monotonic() - started < 10, flush=True)
                raise
    """,
        size=3,
        without=1,
    )
    for rank, process in enumerate(ended):
        if rank == 1:
            continue
        assert process.returncode == 1, process  # by the error that it ends with, and no other
        assert "pvnas.errors.LostProcessError: process 1 (pid" in process.stderr.rstrip().splitlines()[-1]
        who, elsewhere, in_time = process.stdout.splitlines()
        assert who.startswith("process 1 (pid ")
        assert " and " not in who.partition("was lost, or did not answer in time")[0]
        assert elsewhere == str(rank != 0)
        assert in_time == "True"


def test_they_that_do_not_find_each_other_say_so() -> None:
    ended = joined("""
        os.environ["WORLD_SIZE"] = "3"
        config.lost_after = 2.0
        try:
            with joined_world(config):
                pass
        except UserError as error:
            print(error)
    """)
    assert all("does not find the other 2" in e.stdout for e in ended), ended
