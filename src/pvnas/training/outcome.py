"""What a results.json says, in words: read by the command and the page, so nothing slow is imported here."""

from collections.abc import Mapping
from typing import Any


def summary(results: dict[str, Any]) -> str:
    """Return what results.json says in one line."""
    if not results["n_videos"]:
        return "no test videos"
    return (
        f"top-1 {results['top1']:.2f} %, top-{results['k']} {results['top5']:.2f} %, "
        f"mean class {results['mean_class']:.2f} % on {results['n_videos']} videos, {results['views']} views"
    )


def mean_class_name(results: Mapping[str, Any]) -> str:
    """Return what the mean over classes is over, in words."""
    tested, classes = results.get("n_classes_tested"), len(results.get("classes", ()))
    all_of_them = tested in (None, classes)
    return "mean over classes" if all_of_them else f"mean over the {tested} of {classes} classes with test videos"


def lacks(results: Mapping[str, Any]) -> list[str]:
    """Return a line for the test and one for validation where there were no videos for it: what that means, what to do.

    ``results``: the content of a results.json, of any version.
    """
    lines = []
    if results.get("n_videos") == 0:
        failed = results.get("n_failed", 0)
        none = (
            f"none of the {failed} test videos can be read (see verdicts.csv)" if failed else "there are no test videos"
        )
        lines.append(
            f"{none}: the network is trained, but nothing says how good it is; test it on other videos with "
            "pvnas test DATA --dir RUN --out DIR, or in a new run (another --dir) name test videos in a folder test or "
            "a split.csv, or hold some out with --data.test_share 0.2"
        )
    if trained_on := results.get("n_validation_trained_on"):
        lines.append(
            f"the {trained_on} validation videos were trained on, too: no curve shows from when on the network learns "
            "by heart; a run with --train.final_on train (another --dir) shows it"
        )
    elif results.get("n_validation") == 0:
        lines.append(
            "there are no validation videos: no curve shows from when on the network learns by heart; in a new run "
            "(another --dir) name some in a folder val or a split.csv, or hold some out with "
            "--data.validation_share 0.15"
        )
    return lines
