"""Random streams depend on their names only."""

import subprocess
import sys

import torch

from pvnas.runtime.random import generator, key, seed_all


def test_key_has_63_bits_and_is_the_same_everywhere() -> None:
    """Golden, half of what `printf %s '[0]' | b2sum -l 64` says: other keys would make recorded runs unrepeatable."""
    assert key(0) == 6197007067532723406
    assert key(7, "train", 3, 12) == 5686670498059034566
    assert all(0 <= key(seed, "x", seed) < 2**63 for seed in range(200))


def test_key_does_not_hang_on_the_hash_seed_of_the_process() -> None:
    code = "from pvnas.runtime.random import key; print(key(1, 'a', 2))"
    other = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "1"}, capture_output=True, check=True)
    assert int(other.stdout) == key(1, "a", 2)


def test_key_tells_parts_apart() -> None:
    keys = [
        key(0),
        key(1),
        key(-1),
        key(0, 0),
        key(0, 1),
        key(0, "1"),
        key(0, "a", "b"),
        key(0, "ab"),
        key(0, "b", "a"),
    ]
    assert len(set(keys)) == len(keys)


def test_generators_of_one_name_are_equal_and_independent_of_the_global_one() -> None:
    first = torch.rand(4, generator=generator(3, "crop", 1))
    torch.rand(10)
    assert torch.equal(first, torch.rand(4, generator=generator(3, "crop", 1)))
    assert not torch.equal(first, torch.rand(4, generator=generator(3, "crop", 2)))


def test_seed_all_seeds_the_block_and_restores_the_state_after_it_and_after_an_error() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    try:
        with seed_all(key(1, "dropout")):
            first = torch.rand(3)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.rand(2), expected)
    with seed_all(key(1, "dropout")):
        assert torch.equal(torch.rand(3), first)
