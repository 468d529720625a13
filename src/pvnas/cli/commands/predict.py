"""``pvnas predict``: what is seen in video files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from pvnas.cli.arguments import JSON, run_directory
from pvnas.cli.command import Argument, command
from pvnas.cli.output import print_json, print_table
from pvnas.errors import UserError
from pvnas.settings import shown


@command(
    "predict",
    Argument("videos", "video file", metavar="VIDEO", many=True),
    Argument("--dir", "run directory with a trained network", metavar="RUN"),
    Argument("--top", "classes to print for each video", 5, least=1),
    JSON,
    example="pvnas predict clip.mp4 --dir runs/my_videos-laptop --top 3",
)
def predict(args: Namespace) -> None:
    """Say what is seen in video files."""
    run_dir = run_directory(args.dir)
    missing = [video for video in args.videos if not Path(video).is_file()]
    if missing:
        raise UserError(f"no video file {shown(missing[0])}; name files, not folders")
    from pvnas.deploy.predict import predict

    predictions = predict([Path(video) for video in args.videos], run_dir, args.top)
    if args.json:
        print_json(
            [{"path": str(p.path), "classes": [{"class": n, "score": s} for n, s in p.classes]} for p in predictions]
        )
        return
    rows = [
        (str(prediction.path), rank, name, f"{score:.3f}")
        for prediction in predictions
        for rank, (name, score) in enumerate(prediction.classes, start=1)
    ]
    print_table(["video", "rank", "class", "score"], rows)
