"""``pvnas export``: a trained network as a file for other programs."""

from argparse import Namespace
from pathlib import Path
from typing import Any, Literal

from pvnas.api import tested_config
from pvnas.cli.command import Argument, command
from pvnas.cli.shared import DEADLINE, JSON, model_directory, print_json, videos_typed
from pvnas.errors import UserError
from pvnas.settings import CONFIG_NAME


@command(
    "export",
    Argument("run", "run directory, or a folder with its model.json and model.safetensors", metavar="RUN"),
    Argument("--format", "of the file: onnx, or torch for torch.export.load", "onnx", Literal["onnx", "torch"]),
    Argument("--pixels", "from uint8 RGB frames to probabilities, all that comes before the network inside", False),
    Argument("--int8", "weights and activations of eight bits, tried on the run's validation videos", False),
    Argument("--videos", "try it on these, not on the run's test videos", None, kind=str, metavar="VIDEO", many=True),
    Argument("--out", "the file [RUN/export/model.onnx]", None, metavar="FILE"),
    DEADLINE,
    JSON,
    example="pvnas export runs/my_videos-laptop\npvnas export runs/my_videos-laptop --pixels --out model.onnx",
)
def export(args: Namespace) -> None:
    """Write a trained network as ONNX or for torch.export, tried on real clips before the file gets its name."""
    run_dir = model_directory(args.run)
    from pvnas.deploy.export import FOLDER, Form, need_packages

    form = Form(args.format, args.pixels, args.int8)
    need_packages(form)
    out = Path(args.out or run_dir / FOLDER / form.file_name)
    if out.suffix != Path(form.file_name).suffix:
        raise UserError(f"--out writes {args.format}; name it so: --out {out.stem}{Path(form.file_name).suffix}")
    if args.out and out.exists():
        raise UserError(f"--out {out}: there is a file of this name; name another one, or delete it")
    if args.videos:
        if args.int8:
            raise UserError(
                "--int8 is made by a run's training videos and tried on its validation: leave --videos away"
            )
        row = _tried_on(args, run_dir, form, out)
    elif (run_dir / CONFIG_NAME).is_file():
        from pvnas import pipeline

        row = pipeline.export(tested_config(run_dir, is_other_set=False, overrides={}), run_dir, form, out)
    else:
        raise UserError(f"{run_dir} holds a network without its videos; name some to try it on: --videos VIDEO ...")
    if args.json:
        print_json(row)
        return
    at_once = " and ".join(map(str, row["batches"]))
    print(
        f"{out}: {row['bytes'] / 1e6:.1f} MB; on {row['clips']} real clips, {at_once} at once, "
        f"scores differ by {row['largest_difference']:.1g} of the largest, the class is the same on {row['same_top1']}"
    )
    if "val_top1" in row:
        print(f"validation top-1 {row['val_top1']:.1f} %, of the network itself {row['val_top1_of_network']:.1f} %")


def _tried_on(args: Namespace, run_dir: Path, form: Any, out: Path) -> dict[str, Any]:
    """Write a file, tried on the views of videos that were named."""
    from contextlib import closing

    import torch

    from pvnas.data.check import Limits
    from pvnas.deploy.answers import made_of
    from pvnas.deploy.export import CLIPS, export_model
    from pvnas.deploy.model import load_model

    model, views = load_model(run_dir), []
    answers = made_of(model, videos_typed(args.videos), lambda views_NCTHW: views_NCTHW, Limits(1, args.deadline))
    with closing(answers):
        for _, made, _ in answers:
            if made is not None:
                views.append(made)
            if sum(map(len, views)) >= 2 * CLIPS:
                break
    if not views:
        raise UserError("none of the videos can be read: see pvnas data check")
    return export_model(model, run_dir, form, out, torch.cat(views)[: 2 * CLIPS])
