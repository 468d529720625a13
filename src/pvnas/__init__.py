"""pvnas: find, train and test the best video-recognition network for your videos and your budget.

The method is PV-NAS (a differentiable search for spatial and temporal cells). ``pvnas --help`` is the way in for
people; for programs the public names are here and are imported when they are first used::

    import pvnas

    results = pvnas.run("my_videos", preset="laptop")
    genotype = pvnas.Genotype.load("runs/demo/run/genotype.json")
    network = pvnas.create_model("pvnas_l", genotype=genotype, num_classes=101)
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pvnas.version import __version__

if TYPE_CHECKING:  # `as`: what type checkers take for public
    from pvnas.api import export as export
    from pvnas.api import run as run
    from pvnas.api import search as search
    from pvnas.api import test as test
    from pvnas.api import train as train
    from pvnas.config import RunConfig as RunConfig
    from pvnas.deploy.features import Features as Features
    from pvnas.deploy.features import features as features
    from pvnas.deploy.loaded import load as load
    from pvnas.deploy.models import create_model as create_model
    from pvnas.deploy.models import list_models as list_models
    from pvnas.deploy.predictions import Prediction as Prediction
    from pvnas.deploy.predictions import predict as predict
    from pvnas.deploy.predictions import predictions as predictions
    from pvnas.deploy.timeline import Joining as Joining
    from pvnas.deploy.timeline import Timeline as Timeline
    from pvnas.deploy.timeline import timelines as timelines
    from pvnas.errors import UserError as UserError
    from pvnas.fast.inference import for_inference as for_inference
    from pvnas.runtime.signals import Interrupted as Interrupted
    from pvnas.runtime.spinning import adapt_spinning as adapt_spinning
    from pvnas.settings import load_config as load_config
    from pvnas.space.cost import network_cost as network_cost
    from pvnas.space.genotype import Genotype as Genotype
    from pvnas.space.genotype import random_genotype as random_genotype
    from pvnas.space.operations import register_operation as register_operation

# Public name -> where it is defined.
_HOMES = {
    "Features": "pvnas.deploy.features",
    "Genotype": "pvnas.space.genotype",
    "Interrupted": "pvnas.runtime.signals",
    "Joining": "pvnas.deploy.timeline",
    "Prediction": "pvnas.deploy.predictions",
    "RunConfig": "pvnas.config",
    "Timeline": "pvnas.deploy.timeline",
    "UserError": "pvnas.errors",
    "adapt_spinning": "pvnas.runtime.spinning",
    "create_model": "pvnas.deploy.models",
    "export": "pvnas.api",
    "features": "pvnas.deploy.features",
    "for_inference": "pvnas.fast.inference",
    "list_models": "pvnas.deploy.models",
    "load": "pvnas.deploy.loaded",
    "load_config": "pvnas.settings",
    "network_cost": "pvnas.space.cost",
    "predict": "pvnas.deploy.predictions",
    "predictions": "pvnas.deploy.predictions",
    "random_genotype": "pvnas.space.genotype",
    "register_operation": "pvnas.space.operations",
    "run": "pvnas.api",
    "search": "pvnas.api",
    "test": "pvnas.api",
    "timelines": "pvnas.deploy.timeline",
    "train": "pvnas.api",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for, so that ``import pvnas`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pvnas' has no attribute {name!r}")
    if sys.platform == "win32" and _HOMES[name] in (
        "pvnas.api",
        "pvnas.deploy.features",
        "pvnas.deploy.loaded",
        "pvnas.deploy.predictions",
    ):
        errors = import_module("pvnas.errors")
        raise errors.UserError(errors.NOT_ON_WINDOWS)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
