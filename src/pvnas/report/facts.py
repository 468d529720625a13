"""The sections that a repetition needs: data, settings, machine and versions."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pvnas.report.html import FOLD_FRAME, Section, absent, number, right, table, td, text
from pvnas.report.record import RunRecord
from pvnas.report.style import clean

GOOD_VERDICTS = frozenset({"ok", "short"})
BAD_VIDEOS_SHOWN = 100


def data_section(record: RunRecord) -> Section:
    """Videos by split and the verdicts on them."""
    verdicts = Counter(row["verdict"] for row in record.verdicts)
    bad = [row for row in record.verdicts if row["verdict"] not in GOOD_VERDICTS]
    see = "Which videos were used and which could not be read; a bad video is named and left out, never replaced."
    if record.verdicts:
        see += f" {len(record.verdicts) - len(bad)} of {len(record.verdicts)} videos are good."
    body = [_splits(record)]
    if verdicts:
        rows = [[td(name), right(number(count))] for name, count in verdicts.most_common()]
        body.append("<h3>Verdicts</h3>" + table(["verdict", "videos!"], rows))
    if bad:
        body.append(_bad_videos(bad))
    if not record.catalog and not record.verdicts:
        body = [absent("The data of this run are not recorded here.")]
    return Section("data", "Data", see, "".join(body))


def _splits(record: RunRecord) -> str:
    counts = record.catalog.get("counts", {})
    if not counts:
        return ""
    rows = [
        [
            td(split),
            right(number(sum(by_class.values()))),
            right(number(len(by_class))),
            right(_range(by_class.values())),
        ]
        for split, by_class in counts.items()
    ]
    excluded = f"{number(record.catalog.get('excluded', 0))} excluded; folder "
    folder = f"<code>{text(record.catalog.get('root', '–'), 400)}</code>"
    return table(["split", "videos!", "classes!", "videos a class!"], rows) + f'<p class="quiet">{excluded}{folder}</p>'


def _range(values: Iterable[int]) -> str:
    ordered = sorted(values)
    if not ordered:
        return "–"
    return str(ordered[0]) if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def _bad_videos(bad: Sequence[Mapping[str, Any]]) -> str:
    rows = [[td(row.get("path")), td(row["verdict"]), td(row.get("detail", ""))] for row in bad[:BAD_VIDEOS_SHOWN]]
    more = (
        f'<p class="quiet">and {len(bad) - BAD_VIDEOS_SHOWN} more, in verdicts.csv</p>'
        if len(bad) > BAD_VIDEOS_SHOWN
        else ""
    )
    listed = table(["video", "verdict", "what was found"], rows) + more
    fold = " open" if len(bad) <= 12 else ""
    return f"<h3>Videos that are not good</h3><details{fold}><summary>{len(bad)} videos{FOLD_FRAME}{listed}</details>"


def settings_section(record: RunRecord) -> Section:
    """The complete config."""
    see = "Every setting of this run, complete: the file can be given to another run."
    if not record.config_text:
        return Section("settings", "Settings", see, absent("No config.yaml."))
    shown = escape("\n".join(clean(line, 400) for line in record.config_text.splitlines()[:1000]))
    return Section(
        "settings", "Settings", see, f"<details><summary>config.yaml{FOLD_FRAME}<pre>{shown}</pre></details>"
    )


def machine_section(record: RunRecord) -> Section:
    """Versions, machine, digest and the commands that make the run again."""
    see = (
        "The same command, data, versions and number of threads give the same digest, which stands for every weight, α "
        "and statistic of the run."
    )
    rows = [[td(key), td(value, 400)] for key, value in _flat(record.environment)]
    names = {"digest": "digest", "genotype_digest": "digest of the genotype"}
    rows += [[td(name), td(record.results[key])] for key, name in names.items() if key in record.results]
    body = ["<h3>Again</h3>", f"<pre>{escape(_commands(record))}</pre>", "<h3>Machine, versions, digest</h3>"]
    body.append(table(["", ""], rows) if rows else absent("Machine and versions are not recorded here."))
    return Section("again", "Machine, versions and how to repeat it", see, "".join(body))


def _commands(record: RunRecord) -> str:
    """Return the commands that made the run, make it again into another folder, and check it."""
    folder = clean(record.folder)
    data = clean(record.setting("data.path") or record.catalog.get("root") or "DATA", 400)
    command = record.environment.get("command")
    lines = []
    if command:
        made = shlex.join(_without_place(command)) if isinstance(command, list) else str(command)
        lines += ["# made by", clean(made, 1000), ""]
    config = shlex.quote(f"{folder}/config.yaml")
    lines += [
        "# the same again, into another folder",
        f"pvnas run {shlex.quote(data)} --config {config} --dir AGAIN",
        "",
    ]
    lines += ["# compare", f"pvnas digest {shlex.quote(folder)}", "pvnas digest AGAIN"]
    return "\n".join(lines)


def _without_place(argv: Sequence[Any]) -> list[str]:
    """Return a command line as a person would type it, not with the path of the script that ran."""
    script, *rest = map(str, argv)
    name = Path(script).name
    return (["python", "-m", "pvnas"] if name == "__main__.py" else [name]) + rest


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name} ")
        elif key != "command" and value not in (None, "", [], {}):
            rows.append((name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


# Tables
