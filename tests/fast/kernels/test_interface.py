"""That each set has what the interface says, under the same names and arguments."""

import inspect

import pytest

from pvnas.fast.kernels.interface import Kernels

FUNCTIONS = {
    name: function for name, function in vars(Kernels).items() if inspect.isfunction(function) and name[0] != "_"
}


@pytest.mark.parametrize("chosen", ["pytorch float32", "c++ float32", "triton float32"], indirect=True)
def test_all_functions_and_their_arguments(kernels, chosen):
    assert chosen.name == kernels.NAME
    for name, function in FUNCTIONS.items():
        _, *expected = inspect.signature(function).parameters.values()
        result = inspect.signature(getattr(kernels, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in result] == [(p.name, p.kind, p.default) for p in expected], name
