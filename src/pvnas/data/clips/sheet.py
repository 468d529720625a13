"""A picture of what augmentation makes of training clips: of a few videos the plain clip and, below it, random ones.

Legend: N clips, C channels, T frames, H and W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pvnas.config import BatchConfig, ClipConfig, RunConfig, SearchConfig, TrainConfig
from pvnas.data.clips.augment import full_size
from pvnas.data.clips.loader import Batch, augmented_batch, validation_batches
from pvnas.data.clips.network_input import motion_pictures
from pvnas.data.clips.training_clips import TrainingClips
from pvnas.data.dataset import VideoDataset
from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic
from pvnas.runtime.progress import clean

VIDEOS, DRAWS, FRAMES, COLUMNS = 4, 3, 6, 2
LARGEST_FRAME = 88  # pixels: two columns are as wide as the report's page
GAP, TEXT_HEIGHT, TEXT_SIZE, LEAST_WIDTH = 4, 18, 13, 360
NAME_LENGTH = 60
CUT = " ..."


def write_sheet(
    path: Path, videos: VideoDataset, config: RunConfig, stage: SearchConfig | TrainConfig, clips: int = DRAWS
) -> None:
    """Write a PNG: of up to VIDEOS videos the plain centre clip, then ``clips`` random ones as training sees them.

    Raises UserError where there is no training video, or one cannot be read.
    """
    if not len(videos):
        raise UserError("no training videos; add some, or lower --data.validation_share and --data.test_share")
    chosen = _spread(videos)
    plain = next(validation_batches(videos.select(chosen), config.clip, stage.augment, len(chosen)))
    # As one shard, so that clips are mixed with others of the sheet, and as large as they become.
    shown = replace(stage, batch=BatchConfig(1, len(chosen)), augment=full_size(stage.augment))
    random_clip = TrainingClips(videos, config, shown, epoch=0)
    draws = [
        augmented_batch(random_clip, [(draw, n, index) for n, index in enumerate(chosen)]) for draw in range(clips)
    ]
    blocks = []
    for n in range(len(chosen)):
        of_plain = f"{_class(plain, n, videos)}, plain: {clean(Path(plain.paths[n]).name)}"
        rows = [
            (of_plain, plain.clips_NCTHW[n]),
            *((_caption(batch, n, videos), batch.clips_NCTHW[n]) for batch in draws),
        ]
        blocks.append([(text, _strip(clip, config.clip)) for text, clip in rows])
    write_atomic(path, _png(blocks))


def _spread(videos: VideoDataset) -> list[int]:
    """Return videos evenly spread over all, class after class."""
    by_class = np.argsort(videos.catalog.videos.labels, kind="stable")
    places = np.unique(np.linspace(0, len(videos) - 1, VIDEOS).round().astype(int))
    return [int(index) for index in by_class[places]]


def _class(batch: Batch, n: int, videos: VideoDataset) -> str:
    return clean(videos.catalog.classes[int(batch.labels_N[n])])[:NAME_LENGTH]


def _caption(batch: Batch, n: int, videos: VideoDataset) -> str:
    """Return the labels of a random clip, and whether the network does not see its colours."""
    text, extras = _class(batch, n, videos), batch.extras
    if extras.other_labels_N is not None and extras.other_shares_N is not None:
        other, share = videos.catalog.classes[int(extras.other_labels_N[n])], 100 * float(extras.other_shares_N[n])
        text = f"{100 - share:.0f} % {text}, {share:.0f} % {clean(other)[:NAME_LENGTH]}"
    return text if extras.keeps_rgb_N is None or extras.keeps_rgb_N[n] else f"{text}, seen without its colours"


def _strip(clip_CTHW: Tensor, clip: ClipConfig) -> NDArray[np.uint8]:
    """Return up to FRAMES frames of a clip side by side (H, W, C), where motion is seen with the motion below each."""
    shown = torch.from_numpy(np.unique(np.linspace(0, clip.frames - 1, FRAMES).round().astype(int)))
    lines = [clip_CTHW.cpu()[:, shown].expand(3, -1, -1, -1)]
    if clip.input != "rgb":
        lines.append(motion_pictures(clip_CTHW[None].cpu(), clip)[0][:, shown])
    strips = []
    for frames_TCHW in (line.transpose(0, 1) for line in lines):
        if frames_TCHW.shape[-1] > LARGEST_FRAME:
            frames_TCHW = F.interpolate(frames_TCHW, size=(LARGEST_FRAME,) * 2, mode="bilinear", antialias=True)
        framed = F.pad(frames_TCHW, (0, GAP // 2), value=255)
        strips.append(np.concatenate(list(framed.permute(0, 2, 3, 1).numpy()), axis=1))
    return np.concatenate(strips)


def _png(blocks: Sequence[Sequence[tuple[str, NDArray[np.uint8]]]]) -> bytes:
    """Return the captions and strips of each video below one another, the videos in columns, as a PNG."""
    height, strip_width = blocks[0][0][1].shape[:2]
    width = max(strip_width, LEAST_WIDTH)  # of small frames, too, a caption has room
    row, block = TEXT_HEIGHT + height + GAP, (TEXT_HEIGHT + height + GAP) * len(blocks[0]) + 2 * GAP
    columns = min(COLUMNS, len(blocks))
    sheet = Image.new("RGB", ((width + 4 * GAP) * columns, block * math.ceil(len(blocks) / columns)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_SIZE)
    for number, rows in enumerate(blocks):
        left, top = number % columns * (width + 4 * GAP), number // columns * block
        for text, strip in rows:
            draw.text((left, top + 1), _shortened(text, width, font), fill="black", font=font)
            sheet.paste(Image.fromarray(strip), (left, top + TEXT_HEIGHT))
            top += row
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a text, or as much of it as is no wider than so many pixels, with a mark where it is cut."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + CUT) > width:
        text = text[:-1]
    return text + CUT
