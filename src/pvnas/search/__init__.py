"""The search. Called, it is the function ``pvnas.search``: a package and a function of one name hide each other."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("pvnas.api").search(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
