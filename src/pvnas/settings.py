"""Reads, checks, compares and writes configs: a preset, then a file, then single fields.

Every mistake is a :class:`~pvnas.errors.UserError` of one line. Fields go by their dotted names (``train.width``).
YAML is read by a safe loader without tags, aliases or duplicate keys. Nothing here imports torch.
"""

import ast
import difflib
import inspect
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from pvnas import config as config_module
from pvnas.config import HARMLESS_FIELDS, LOCATION_FIELDS, RunConfig
from pvnas.errors import UserError
from pvnas.presets import PRESETS

DEFAULT_PRESET = "laptop"
AUTO = "auto"
"""The preset that is chosen for the videos and the time there is (pvnas.plan): ``--hours 1``."""
CONFIG_NAME, ENVIRONMENT_NAME = "config.yaml", "environment.json"
COSTS = ("budget.params", "budget.macs")
"""Fields whose numbers may have a unit: 3M, 0.3G."""
MOST_HOURS = 10_000
MOST_NAMED = 6
"""Fields that a message names; a preset forgotten on resuming changes dozens."""
MAX_FILE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Field:
    """One setting: its dotted name, its type (str, int, float, bool or a Literal) and what it is for."""

    name: str
    kind: Any
    help: str

    @property
    def section(self) -> str:
        """Dotted name of the part it belongs to; empty for the fields of a whole run."""
        return self.name.rpartition(".")[0]

    @property
    def is_cost(self) -> bool:
        """Whether its number may have a unit, as a field or as an option."""
        return self.name.removeprefix("--") in COSTS

    @property
    def takes(self) -> str:
        """What a person may write for it, in words."""
        if get_origin(self.kind) is Literal:
            return "one of " + ", ".join(get_args(self.kind))
        if self.is_cost:
            return "a whole number, or one with k, M, G or T, such as 3M"
        return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[self.kind]


@cache
def all_fields() -> dict[str, Field]:
    """Every setting of a run by dotted name, in the order of ``config.py``."""
    return {field.name: field for field in _fields_of(RunConfig, "")}


def _fields_of(part: type, prefix: str) -> Iterator[Field]:
    """The fields of a part first, then those of the parts inside it."""
    for name, kind in sorted(get_type_hints(part).items(), key=lambda hint: is_dataclass(hint[1])):
        if is_dataclass(kind):
            yield from _fields_of(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield Field(prefix + name, kind, _texts_below_fields().get((part.__name__, name), ""))


@cache
def _texts_below_fields() -> dict[tuple[str, str], str]:
    """The text below each field of the config's dataclasses by class and field, which Python itself does not keep."""
    try:
        tree = ast.parse(inspect.getsource(config_module))
    except OSError:  # installed without its source
        return {}
    return {
        (part.name, ast.unparse(line.target)): inspect.cleandoc(ast.literal_eval(below.value))
        for part in tree.body
        if isinstance(part, ast.ClassDef)
        for line, below in pairwise(part.body)
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


def section_help(section: str) -> str:
    """The first line of the docstring of the part with this dotted name; empty for the whole run."""
    part = get_field(RunConfig(), section) if section else RunConfig
    return (inspect.getdoc(part) or "").partition("\n")[0]


def preset_config(name: str) -> RunConfig:
    """A fresh copy of the preset; UserError with the nearest name for an unknown one."""
    if name == AUTO:
        raise UserError("preset auto is chosen for given videos and a whole run: pvnas run DATA --preset auto")
    if name not in PRESETS:
        raise UserError(f"no preset {shown(name)}{nearest(name, PRESETS)}; there are {', '.join(PRESETS)}")
    return PRESETS[name]()


def load_config(
    preset: str | None = None, file: str | Path | None = None, overrides: Mapping[str, object] | None = None
) -> RunConfig:
    """Preset, then the fields of a YAML file, then single fields by dotted name, checked.

    Without a preset the file's is taken, and ``laptop`` where it names none. A file may be partial.
    """
    in_file = fields_of_file(file) if file is not None else {}
    if preset is None:
        preset = str(checked(all_fields()["preset"], in_file.get("preset", DEFAULT_PRESET), f"{file}: "))
    config = preset_config(preset)
    for name, value in in_file.items():
        set_field(config, name, value, where=f"{file}: ")
    for name, value in (overrides or {}).items():
        set_field(config, name, value)
    config.preset = preset
    check_config(config)
    return config


def fields_of_file(file: str | Path) -> dict[str, object]:
    """The fields that a YAML file names, by dotted name. UserError for one that is no config."""
    return _flatten(read_yaml(file), where=str(file))


def dump_config(config: RunConfig, *, comments: bool = False) -> str:
    """The config as YAML that loads back equal; with comments every field is explained above its line."""
    lines, section = [], ""
    for name, field in all_fields().items():
        indent = "  " * name.count(".")
        if field.section != section:  # each part's own fields come before the parts inside it
            section = field.section
            lines += [f"# {section_help(section)}"] if comments and "." not in section else []
            lines.append(f"{indent[2:]}{section.rpartition('.')[2]}:")
        lines += [f"{indent}# {' '.join(field.help.split())}"] if comments else []
        lines.append(f"{indent}{name.rpartition('.')[2]}: {_yaml_value(get_field(config, name))}")
    return "\n".join(lines) + "\n"


def _yaml_value(value: object) -> str:
    """The value on one line of YAML; a text of other characters than plain ones in double quotes, escaped."""
    unusual = isinstance(value, str) and not (value.isascii() and value.isprintable())
    text = yaml.safe_dump(value, default_style='"' if unusual else None, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def get_field(config: RunConfig, name: str) -> Any:
    """Value of the field with this dotted name."""
    return operator.attrgetter(name)(config)


def set_field(config: RunConfig, name: str, value: object, *, where: str = "") -> None:
    """Sets one field by dotted name; UserError for an unknown name or a value of the wrong type."""
    field = all_fields().get(name)
    if field is None:
        raise UserError(f"{where}no field {shown(name)}{nearest(name, all_fields())}; see: pvnas config show laptop")
    section, _, leaf = name.rpartition(".")
    setattr(get_field(config, section) if section else config, leaf, checked(field, value, where))


def differences(old: RunConfig, new: RunConfig) -> dict[str, str]:
    """``old -> new`` by dotted name for each field that differs, in the order of ``config.py``."""
    pairs = {name: (get_field(old, name), get_field(new, name)) for name in all_fields()}
    return {name: f"{plain(a) or repr('')} -> {plain(b) or repr('')}" for name, (a, b) in pairs.items() if a != b}


def has_learnt(run_dir: str | Path) -> bool:
    """Whether a run has come so far that it cannot become another one: it has a checkpoint, or a trained network."""
    checkpoints, weights = Path(run_dir, "checkpoints"), Path(run_dir, "model.safetensors")
    return weights.exists() or any(checkpoints.glob("*/*"))


def check_resumable(run_dir: str | Path, config: RunConfig) -> None:
    """UserError with the differences if the directory holds a run of another config that has learnt something.

    Harmless fields aside, and where the videos lie: whether they are the same is asked of themselves. A run that was
    refused before it began is mended by another command; a config that no run has left there is the user's.
    """
    file, config = Path(run_dir) / CONFIG_NAME, with_fitted_size(config, run_dir)
    refused = Path(run_dir, ENVIRONMENT_NAME).exists() and not has_learnt(run_dir)
    if refused or not file.exists():
        return
    if fields := changed_fields(load_config(file=file), config):
        raise UserError(
            f"{run_dir} holds a run of another config ({fields}); "
            "to resume it type the old values, for a new run name another --dir"
        )


def with_fitted_size(config: RunConfig, run_dir: str | Path) -> RunConfig:
    """Return the config of a run that goes on, with the width and depth that it has found where it looks for them."""
    file = Path(run_dir) / CONFIG_NAME
    begun = has_learnt(run_dir) or Path(run_dir, "genotype.json").exists()
    if config.budget.width != "fit" or not file.exists() or not begun:
        return config
    before = load_config(file=file)
    if before.budget.width != "fit":
        return config
    return replace(config, train=replace(config.train, width=before.train.width, repeat=before.train.repeat))


def changed_fields(old: RunConfig, new: RunConfig) -> str:
    """The fields that would change numbers and are others now, in words; empty where there are none.

    Harmless fields are left out, and where the videos lie.
    """
    changes = differences(old, new)
    changed = [f"{name}: {change}" for name, change in changes.items() if name not in HARMLESS_FIELDS | LOCATION_FIELDS]
    more = len(changed) - MOST_NAMED
    return "; ".join([*changed[:MOST_NAMED], *([f"{more} fields more"] if more > 0 else [])])


def plain(value: object) -> str:
    """The value as a person writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# Values


def shown(value: object, limit: int = 60) -> str:
    """The value as a person wrote it, quoted, short and on one line; a container by its kind only."""
    if isinstance(value, Mapping):
        return "a group of fields"
    if isinstance(value, list | tuple | set):
        return "a list"
    if isinstance(value, int) and abs(value) > 10**limit:  # Python refuses to print huge integers
        return "a huge number"
    text = plain(value) if value is not None else "nothing"
    return repr(text if len(text) <= limit else text[:limit] + "…")


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)`` for the known name that is closest, or an empty text."""
    known = list(known)
    # Somebody may well type the last word alone (`width`), which is near to no dotted name.
    close = [full for full in known if "." not in name and full.rpartition(".")[2] == name]
    close = close[:3] or difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def checked(field: Field, value: object, where: str = "") -> object:
    """The value as the field's type: of a text out of a command line, or of what YAML reads. UserError for another."""
    kind = field.kind
    # YAML reads the texts true and false as booleans, and 1e-3 as a text.
    text = str(value).lower() if isinstance(value, bool) or kind is bool else value
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if kind is str and isinstance(value, str):
        return value
    if text in get_args(kind):
        return text
    if field.is_cost and isinstance(value, str) and (cost := human_number(value)) is not None:
        return cost
    if kind in (int, float) and isinstance(value, str | int | kind) and not isinstance(value, bool):
        try:
            number: int | float = kind(value)
        except (ValueError, OverflowError):
            number = math.nan
        if abs(number) < math.inf:
            return number
    hint = nearest(value, get_args(kind)) if isinstance(value, str) and get_args(kind) else ""
    raise UserError(f"{where}{field.name} takes {field.takes}, not {shown(value)}{hint}")


def human_number(text: str) -> int | None:
    """The whole number that a text such as 3M, 0.3G or 1200k stands for; None for any other text."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)([kMGT])", text.strip())
    return round(float(match[1]) * _UNITS[match[2]]) if match else None


_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


# What a number may be, the limits included, by the last word of the field's name.
_LARGE, BELOW_ONE = 10**6, 0.9999999
_NAMES_BY_RANGE: dict[tuple[float, float], str] = {
    (0, 2**63 - 1): "seed params macs",
    (-1, 2**63 - 1): "split_seed",
    (0, 1024): "workers",
    (0, 1000): "initial_std",
    (0, 1): "max_bad_share step_factor final_factor brightness contrast saturation grey static drop_rgb body_lr",
    (0.001, 60): "motion_seconds",
    (1, 4): "aspect",
    (0, 8192): "first_crop",
    (0, 4096): "threads latency_threads first_frames",
    (0, 45): "shear",
    (0, 180): "rotate",
    (0.1, 10): "window_min window_max",
    (0, 100): "mixup cutmix",
    (0, 10): "operations",
    (0, 30): "magnitude",
    (0.001, 1000): "temperature final_temperature",
    (0, BELOW_ONE): "momentum beta1 beta2 dropout drop_path label_smoothing ema",
    (0, 0.9): "validation_share test_share",
    (0.01, 0.99): "bilevel_share",
    (0, _LARGE): "checkpoint_minutes cache_gib warmup_epochs lr weight_decay clip_gradient stop_epoch start_epoch "
    "latency_ms",
    (1e-6, _LARGE): "step_epochs deadline",
    (1, _LARGE): "window lr_clips epochs derive_epochs validate_every",
    (1, 65_536): "shards clips_per_shard width",
    (10, _LARGE): "lost_after",
    (1, 4096): "frames",
    (1, 1000): "repeat temporal_views latency_batch",
    (1, 3): "split spatial_views",
    (0.01, 10_000): "window_rate frame_rate",
    (8, 8192): "short_side_min short_side_max short_side crop",
}
_RANGES = {name: limits for limits, names in _NAMES_BY_RANGE.items() for name in names.split()}


# Two numbers that must fit each other: the names, how, and what to say where they do not.
_PAIRS: list[tuple[str, str, Callable[[Any, Any], bool], str]] = [
    ("search.stop_epoch", "search.epochs", operator.le, "must not be after"),
    ("search.derive_epochs", "search.epochs", operator.le, "must not be more than"),
    ("search.alphas.start_epoch", "search.epochs", operator.lt, "must be before"),
    ("search.alphas.start_epoch", "search.stop_epoch", lambda a, b: b == 0 or a < b, "must be before"),
    ("search.alphas.final_temperature", "search.alphas.temperature", operator.le, "must not be higher than"),
    ("search.augment.crop", "search.augment.short_side_min", operator.le, "must not be larger than"),
    ("train.augment.crop", "train.augment.short_side_min", operator.le, "must not be larger than"),
    ("test.crop", "test.short_side", operator.le, "must not be larger than"),
    ("search.augment.short_side_min", "search.augment.short_side_max", operator.le, "must not be larger than"),
    ("train.augment.short_side_min", "train.augment.short_side_max", operator.le, "must not be larger than"),
    ("search.augment.window_min", "search.augment.window_max", operator.le, "must not be larger than"),
    ("train.augment.window_min", "train.augment.window_max", operator.le, "must not be larger than"),
    ("data.validation_share", "data.test_share", lambda a, b: a + b <= 0.9, "leaves no training videos beside"),
]


def check_config(config: RunConfig) -> None:
    """UserError for a number out of its range, or two that cannot go together."""
    for name, field in all_fields().items():
        if field.kind not in (int, float):
            continue
        limits, value = _RANGES[name.rpartition(".")[2]], get_field(config, name)
        if not limits[0] <= value <= limits[1]:
            typed = shown(value if isinstance(value, int) else f"{value:.12g}")
            raise UserError(f"{name} must be {_in_words(*limits)}, not {typed}")
    for left, right, fits, text in _PAIRS:
        a, b = get_field(config, left), get_field(config, right)
        if not fits(a, b):
            raise UserError(f"{left} ({a}) {text} {right} ({b}); set --{left} or --{right}")
    budget = config.budget
    if budget.pressure and (budget.width == "fit" or not (budget.macs or budget.params)):
        raise UserError(
            "budget.pressure is towards budget.macs and budget.params at one width; set --budget.macs, such as 0.3G"
        )
    if budget.width == "fit" and (budget.latency_ms or not (budget.macs or budget.params)):
        raise UserError("budget.width fit goes by budget.macs and budget.params alone; set --budget.macs, such as 0.3G")
    for stage in ("search", "train"):
        balance = get_field(config, f"{stage}.balance")
        if config.data.order == "shards" and balance in ("batches", "groups"):
            raise UserError(
                f"data.order shards goes through a pack as it lies, whatever the classes, {stage}.balance {balance} "
                f"from class to class; set --{stage}.balance weights or --data.order random"
            )
        _check_augment(config, stage)
    objective = config.search.objective
    if config.search.half_steps == "joint" and objective != "one-level":
        raise UserError(
            f"search.half_steps joint makes one pass of one batch, and search.objective {objective} trains "
            "alphas and weights on different videos; set --search.half_steps same or --search.objective one-level"
        )
    for name in ("clip.frames", "search.augment.first_frames", "train.augment.first_frames"):
        if config.clip.sampling == "whole" and get_field(config, name) == 1:
            raise UserError(
                f"clip.sampling whole takes the first and the last frame, and {name} is 1; set --{name} 2 or "
                "--clip.sampling dense"
            )
    if config.test.flip != "false" and config.train.augment.flip == "false":
        raise UserError(
            "test.flip shows the network mirrored views, and train.augment.flip false trains it on none; set "
            "--test.flip false or --train.augment.flip auto"
        )
    if config.test.spatial_views == 2:
        raise UserError("test.spatial_views must be 1 or 3, not 2")


def _in_words(low: float, high: float) -> str:
    if high == BELOW_ONE:
        return f"at least {low} and below 1"
    return "between " + " and ".join(str(limit) if isinstance(limit, int) else f"{limit:g}" for limit in (low, high))


def _check_augment(config: RunConfig, stage: str) -> None:
    """UserError for an augmentation that would do nothing."""
    augment, clips = get_field(config, f"{stage}.augment"), get_field(config, f"{stage}.batch.clips_per_shard")
    if augment.drop_rgb and config.clip.input not in ("both", "flow+rgb"):
        raise UserError(
            f"{stage}.augment.drop_rgb takes the colours from a network that sees motion too, and clip.input is "
            f"{config.clip.input}; set --clip.input both or flow+rgb, or --{stage}.augment.drop_rgb 0"
        )
    for name in ("saturation", "grey"):
        if getattr(augment, name) and config.clip.input == "flow":
            raise UserError(
                f"{stage}.augment.{name} changes colours, and clip.input flow sees none; set "
                f"--{stage}.augment.{name} 0 or --clip.input flow+rgb"
            )
    if augment.static and config.clip.input == "motion":
        raise UserError(
            f"{stage}.augment.static mixes in a frame that stands still, and clip.input motion sees what moves alone; "
            f"set --{stage}.augment.static 0 or --clip.input both"
        )
    for name in ("mixup", "cutmix"):
        if getattr(augment, name) and clips < 2:
            raise UserError(
                f"{stage}.augment.{name} mixes clips of one shard, and {stage}.batch.clips_per_shard is {clips}; "
                f"set it to 2 or more, or --{stage}.augment.{name} 0"
            )


def checked_hours(value: object) -> float:
    """The number of hours that a run is planned for. UserError for what is none."""
    hours = checked(Field("hours", float, ""), value)
    assert isinstance(hours, float)
    if not 0 < hours <= MOST_HOURS:
        raise UserError(f"hours must be above 0 and at most {MOST_HOURS}, not {plain(value)}")
    return hours


# YAML


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases (an alias bomb has them), tags of any kind and duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError("anchors and aliases (& and *) are not taken: write the values out")
        if getattr(event, "tag", None):
            raise yaml.YAMLError("tags (!) are not taken: write plain values")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise yaml.YAMLError(f"{shown(twice)} stands there twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> object:
    """Plain values of a YAML file; UserError if it is missing, too large, no text, or more than plain values."""
    where, file = str(path), Path(path)
    if not file.is_file():
        raise UserError(f"no config file {where}; write one with: pvnas config show laptop > my.yaml")
    with file.open("rb") as stream:
        raw = stream.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise UserError(
            f"{where} is larger than {MAX_FILE_BYTES // 1024} KiB: no config is; see: pvnas config show laptop"
        )
    try:
        return yaml.load(raw.decode("utf-8"), Loader=_PlainLoader)  # a SafeLoader with less, not more
    except RecursionError:
        raise UserError(f"{where} is nested too deeply; see: pvnas config show laptop") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: not UTF-8, a huge number, a date
        raise UserError(f"{where} is no plain YAML: {_reason(error)}; see: pvnas config show laptop") from None


def _reason(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    text = " ".join(str(problem or error).split())[:160]
    return f"line {mark.line + 1}: {text}" if mark is not None else text


def _flatten(tree: object, *, where: str, prefix: str = "") -> dict[str, object]:
    """Dotted names and values of a nested mapping, no deeper than the config itself is."""
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        part = f"{prefix[:-1]} takes a group of fields" if prefix else "a config is a group of fields (name: value)"
        raise UserError(f"{where}: {part}, not {shown(tree)}")
    sections = {name.rpartition(".")[0] for name in all_fields()} | {"search", "train"}
    flat: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in sections:
            flat |= _flatten(value, where=where, prefix=f"{name}.")
        elif name in all_fields():
            flat[name] = value
        else:
            known = [*all_fields(), *sections - {""}]
            raise UserError(f"{where}: no field {shown(name)}{nearest(name, known)}; see: pvnas config show laptop")
    return flat
