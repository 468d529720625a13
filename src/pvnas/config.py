"""Every setting of a run as plain, typed, nested dataclasses.

The texts below the fields are the help texts of the command line. ``P`` marks a value the paper gives, ``D`` a decision
of ours where it is silent. Nothing here imports torch, so that ``pvnas --help`` answers at once.
"""

from dataclasses import dataclass, field
from typing import Literal

StemKind = Literal["stride4", "stride2", "stride4-time", "stride2-time", "stride4-time2", "stride2-time2"]
PAPER_SEARCH_LAYOUT = "S-NC S-RC T-NC T-RC"
PAPER_LAYOUT = "S-NC*K S-RC T-NC*K T-RC T-NC*K T-RC T-NC*K"


@dataclass(frozen=True)
class NetworkConfig:
    """What makes a derived network beside genotype and classes; model.json holds it. The default is PV-NAS-L."""

    layout: str = PAPER_LAYOUT
    """Cells of the network; *K repeats a cell `repeat` times."""
    width: int = 64
    """Channels of the first cells."""
    repeat: int = 1
    """Normal cells between two reductions, the K of the layout."""
    stem: StemKind = "stride4"
    """stride4: 1x7x7 convolution and max-pooling; stride2: one 1x3x3 convolution; -time: and a 3x1x1 convolution after
    that, of neighbouring frames; -time2: the same, of which every other frame is left."""
    head: Literal["normalised", "plain"] = "normalised"
    """Features before dropout and classifier: brought to mean 0 and length 4, or as the last cell leaves them."""
    in_channels: int = 3
    """Channels of what the network sees: 3 of colours or motion, 2 of flow, or both; in model.json the clip says it."""


PV_NAS_L = NetworkConfig()


@dataclass
class DataConfig:
    """Where the videos are and how they are read."""

    path: str = ""
    """Folder of videos, list of videos, or a pack (a folder or URL that `pvnas data pack` wrote)."""
    format: Literal[
        "auto", "folders", "classes", "split.csv", "list", "kinetics", "ssv2", "ucf101", "hmdb51", "jester", "pack"
    ] = "auto"
    """How the videos are listed; auto finds out by what lies in the folder; classes: each folder in it is a class,
    whatever it is called."""
    split: int = 1
    """Which of the official splits: 1, 2 or 3 of ucf101 and hmdb51."""
    annotations: str = ""
    """File or folder with the official lists, where they do not lie in the folder of the videos."""
    allow_outside: str = ""
    """Folder outside of the data folder that listed paths and links may lead into; no other is ever read."""
    validation_share: float = 0.15
    """Share of each class held out for validation where the folder names no validation videos."""
    test_share: float = 0.2
    """Share of each class held out for the test where the folder names no test videos."""
    split_seed: int = -1
    """Seed of what is held out; -1: the run's seed. Runs of several seeds are compared on one test."""
    splits_of: str = ""
    """Run directory whose videos keep their splits; what it does not know is for training unless a list says else."""
    max_bad_share: float = 0.01
    """Refuse to train when more than this share of the videos cannot be read."""
    deadline: float = 60.0
    """Seconds that checking a video may take, and as many more for each minute and each 60 MiB of it."""
    frame_rate: float = 25.0
    """Frames per second of videos that lie as folders of pictures."""
    cache: Literal["auto", "ram", "gpu", "none"] = "auto"
    """Keep every video decoded: in memory (ram), on the GPU (gpu), none, or auto (ram if it fits into cache_gib)."""
    cache_gib: float = 4.0
    """Memory that cache=auto may use, in GiB; less where the machine or its control group has less free."""
    order: Literal["random", "shards"] = "random"
    """Order of an epoch: random, or shard after shard of a pack (D), for slow disks and object stores."""
    workers: int = 0
    """Processes that decode; 0 decodes in the main process. Never changes a result."""


@dataclass
class ClipConfig:
    """How a clip is cut out of a video in time."""

    input: Literal["rgb", "motion", "both", "flow", "flow+rgb"] = "rgb"
    """What the network sees of each frame: its colours (rgb, P), how they change within motion_seconds (motion), where
    its pixels move within them (flow), or one of the latter beside the colours (both: motion and rgb)."""
    motion_seconds: float = 0.067
    """All but rgb: seconds from a frame to the later one that it is compared with; one frame at least."""
    frames: int = 8
    """Frames of a clip (P: 8)."""
    sampling: Literal["dense", "segment", "whole"] = "dense"
    """dense: frames out of a window (P); segment: one frame out of each of `frames` equal parts of the video;
    whole: frames at even distances from the first to the last."""
    window: int = 64
    """Length of the clip in frames of a video of window_rate (P: 64)."""
    window_rate: float = 30.0
    """Frame rate in which the window is counted, per second (P: 30)."""
    short_videos: Literal["clamp", "loop", "fit"] = "clamp"
    """Video shorter than the window: repeat its last frame, start again, or shrink the window to the video."""

    @property
    def colours(self) -> int:
        """Channels of the frames that it is made of: flow alone asks for grey levels, a third of the work."""
        return 1 if self.input == "flow" else 3

    @property
    def channels(self) -> int:
        """Channels of what the network sees."""
        return {"rgb": 3, "motion": 3, "both": 6, "flow": 2, "flow+rgb": 5}[self.input]


@dataclass
class AugmentConfig:
    """Random clips, crops, flips, shapes and colours in training; the centre of the middle size in validation.

    One draw for a clip, the same for all its frames. What the paper does not mention is off (0, or 1 for a ratio).
    """

    short_side_min: int = 128
    """Smallest length of the shorter side that a video is scaled to before the crop, in pixels."""
    short_side_max: int = 164
    """Largest length of the shorter side that a video is scaled to before the crop, in pixels."""
    crop: int = 112
    """Side of the square crop that the network sees, in pixels."""
    first_crop: int = 0
    """Side that crops have in the first epochs, from which they grow to ``crop``; 0: ``crop`` all along. What they show
    of a video is the same."""
    first_frames: int = 0
    """Frames that clips have in the first epochs, from which they double up to clip.frames; 0: as many all along. They
    come from the same part of a video."""
    flip: Literal["auto", "true", "false", "swap"] = "auto"
    """Mirror half of the training clips: auto (unless class names tell left from right), swap (with their labels)."""
    aspect: float = 1.0
    """Largest ratio of the sides of a crop, wider or higher than a square of its area, before it is made one."""
    rotate: float = 0.0
    """Largest angle that a clip is turned by, in degrees."""
    shear: float = 0.0
    """Largest angle that a clip's columns are slanted by, in degrees."""
    brightness: float = 0.0
    """Largest change of brightness, as a share of it."""
    contrast: float = 0.0
    """Largest change of the distances from the mean grey level, as a share of them."""
    saturation: float = 0.0
    """Largest change of the distances from grey, as a share of them."""
    grey: float = 0.0
    """Share of the clips that lose their colours."""
    window_min: float = 1.0
    """Shortest window of a clip, as a share of the config's (clip.sampling dense) or of the video: a shorter one shows
    the video slower."""
    window_max: float = 1.0
    """Longest window of a clip, as a share of the same, as far as the video reaches."""
    static: float = 0.0
    """Largest share of a frame of another training video that is mixed into all frames of half of the clips; the
    difference of two frames (clip.input motion) does not see it."""
    drop_rgb: float = 0.0
    """Share of the clips that lose their colour channels where the network sees them beside motion or flow."""
    mixup: float = 0.0
    """Alpha of the Beta distribution by which each clip is mixed with another of its shard; 0: none."""
    cutmix: float = 0.0
    """Alpha of the Beta distribution of the area that each clip takes over from another of its shard; 0: none."""
    operations: int = 0
    """RandAugment: random operations applied to each clip one after another."""
    magnitude: float = 9.0
    """RandAugment: strength of its operations, 0 to 30; two of them (auto contrast, equalise) have none."""


@dataclass
class BatchConfig:
    """One global batch = shards x clips_per_shard; batch statistics stay inside a shard (the paper's GPU)."""

    shards: int = 1
    """Logical shards ("ghost batches") of the global batch (P: 32 GPUs)."""
    clips_per_shard: int = 32
    """Clips of a shard (P: 32 in the search, 8 in the retraining)."""

    @property
    def clips(self) -> int:
        """Clips of the global batch."""
        return self.shards * self.clips_per_shard


@dataclass
class ScheduleConfig:
    """Factor on a learning rate over the epochs."""

    kind: Literal["step", "cosine", "constant"] = "step"
    """step (P, the search's weights), cosine (P, retraining) or constant (D, alphas)."""
    step_epochs: float = 20.0
    """step: epochs between two drops (P: 20)."""
    step_factor: float = 0.1
    """step: what a drop multiplies the rate by (P: 0.1)."""
    final_factor: float = 0.0
    """cosine: factor at the last step (the search that collapses in the paper ends at 1e-3)."""
    warmup_epochs: float = 0.0
    """Epochs in which the rate first rises linearly from 1 % of itself."""


@dataclass
class WeightOptimizerConfig:
    """SGD with momentum for the network's weights."""

    lr: float = 0.1
    """Learning rate for a global batch of lr_clips clips; scales linearly with the global batch."""
    lr_clips: int = 32
    """Clips that lr is given for."""
    momentum: float = 0.9
    """Momentum (P: 0.9)."""
    nesterov: bool = False
    """Nesterov's form of the momentum."""
    weight_decay: float = 1e-4
    """Weight decay (P: 1e-4)."""
    decay_on: Literal["all", "kernels"] = "all"
    """Parameters that weight decay acts on: all, or all but biases and what batch norms scale and shift by."""
    clip_gradient: float = 0.0
    """Largest norm of the gradient; 0 leaves it alone (P: not mentioned)."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


@dataclass
class AlphaOptimizerConfig:
    """Adam for the architecture parameters alpha."""

    lr: float = 1e-3
    """Learning rate (P: 0.001)."""
    beta1: float = 0.0
    """Decay of the first moment (P: 0)."""
    beta2: float = 0.999
    """Decay of the second moment (P: 0.999)."""
    weight_decay: float = 0.0
    """Weight decay (D: none)."""
    initial_std: float = 1e-3
    """Standard deviation of the initial alphas (D: 1e-3)."""
    start_epoch: float = 0.0
    """Epochs in which the weights alone are trained, before the first step of the alphas (P: none)."""
    temperature: float = 1.0
    """What the alphas are divided by in the softmax, at the start of the search (P: 1)."""
    final_temperature: float = 1.0
    """What they are divided by at its end; in between it falls by the same factor in every step (P: 1)."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="constant"))


@dataclass
class SearchConfig:
    """The search for the four cells."""

    epochs: int = 80
    """Epochs of the search (P: 80)."""
    stop_epoch: int = 0
    """Take the genotype of this epoch; 0 takes the last one (P: table 3 compares 20, 40, 60 and 80)."""
    derive_epochs: int = 1
    """Derive from the mean of the softmax after each of so many last epochs (P: the last alone)."""
    drop_path: float = 0.0
    """Probability of dropping one operation of one edge for one batch, in the weights' half-step (P: none)."""
    layout: str = PAPER_SEARCH_LAYOUT
    """Cells of the search network (P: four)."""
    width: int = 64
    """Channels of the first cells (P: 64)."""
    balance: Literal["none", "batches", "groups", "weights"] = "none"
    """Against unequal classes: as many clips of each class (batches), and within it of each group of videos (groups),
    or losses weighted by 1/videos of the class."""
    objective: Literal["one-level", "bilevel-first", "bilevel-second"] = "one-level"
    """Loss the alphas descend: the training loss (P), or a validation part to first or second order."""
    half_steps: Literal["same", "next", "joint"] = "same"
    """Mini-batch of the weight step: the alpha step's, a fresh one, or one backward pass for both."""
    checkpointing: bool = False
    """Keep each cell's output alone and make the rest again in the backward pass: slower, in much less memory."""
    graphs: bool = True
    """On a GPU, record what a half-step does there and replay it, so that the GPU never waits for the next call."""
    bilevel_share: float = 0.5
    """Share of the training videos on which a bi-level search trains the alphas."""
    validate: bool = True
    """Also measure the supernet on the validation videos after each epoch."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    weights: WeightOptimizerConfig = field(default_factory=WeightOptimizerConfig)
    alphas: AlphaOptimizerConfig = field(default_factory=AlphaOptimizerConfig)


@dataclass
class TrainConfig:
    """Training of the derived network from scratch."""

    epochs: int = 196
    """Epochs (P: 196 on Kinetics-400 and Something-Something V2, 128 on UCF-101)."""
    layout: str = PAPER_LAYOUT
    """Cells of the derived network; *K repeats a cell `repeat` times."""
    width: int = 64
    """Channels of the first cells (P: 64 for L, 100 for M)."""
    repeat: int = 1
    """Normal cells between two reductions, the K of the layout (P: 1 for L, 2 for M)."""
    dropout: float = 0.4
    """Dropout before the classifier (P: 0.4)."""
    ema: float = 0.0
    """Decay per step of the moving average of weights and BN statistics that is validated, kept and tested; 0: none."""
    freeze: Literal["none", "norms", "body"] = "none"
    """Of a network that begins with a trained one's body (pvnas train --from): what of the body keeps still; norms: its
    batch norms, statistics too; body: all of it, so that the classifier alone is trained."""
    body_lr: float = 1.0
    """Of such a network: factor on the learning rate of the body; the new classifier has the whole one."""
    final_on: Literal["train", "train+validation"] = "train"
    """Videos that the network is trained on; with those of validation nothing is left to validate it on."""
    validate_every: int = 1
    """Epochs from one validation to the next; the last epoch always has one."""
    head: Literal["normalised", "plain"] = "normalised"
    """Features before dropout and classifier: brought to mean 0 and length 4, or as the last cell leaves them (D)."""
    drop_path: float = 0.0
    """Probability of dropping one edge's operation for one sample (P: 0.1 on UCF-101)."""
    label_smoothing: float = 0.0
    """Weight of the uniform distribution in the target (P: none)."""
    graphs: bool = True
    """On a GPU, record what a step does there and replay it, so that the GPU never waits for the next call."""
    balance: Literal["none", "batches", "groups", "weights"] = "none"
    """Against unequal classes: as many clips of each class (batches), and within it of each group of videos (groups),
    or losses weighted by 1/videos of the class."""
    batch: BatchConfig = field(default_factory=lambda: BatchConfig(clips_per_shard=8))
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(short_side_min=256, short_side_max=320, crop=224)
    )
    weights: WeightOptimizerConfig = field(
        default_factory=lambda: WeightOptimizerConfig(lr=0.01, lr_clips=8, schedule=ScheduleConfig(kind="cosine"))
    )

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits whose videos the network is trained on."""
        return ("train", "val") if self.final_on == "train+validation" else ("train",)


@dataclass
class TestConfig:
    """The test over many views of each video."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    temporal_views: int = 10
    """Clips of a video (P: 10)."""
    spatial_views: int = 3
    """Crops of a clip along its longer side: 1 (centre) or 3 (P)."""
    rule: Literal["slowfast", "slowfast_offset", "mmaction2", "tsm"] = "slowfast"
    """Where the clips start."""
    short_side: int = 256
    """Length of the shorter side, in pixels (D: 256)."""
    crop: int = 256
    """Side of the square crops, in pixels (D: 256)."""
    flip: Literal["auto", "true", "false", "swap"] = "false"
    """See every view mirrored as well: auto (unless class names tell left from right), swap (and such classes' scores
    change places). P: not mentioned."""
    average: Literal["softmax", "logits"] = "softmax"
    """What is averaged over the views (D: softmax scores)."""


@dataclass
class BudgetConfig:
    """The most that the derived network may cost: its cells are then the best ones within that."""

    params: int = 0
    """Most parameters, such as 3M; 0: any number."""
    macs: int = 0
    """Most multiply-accumulates of one view of the test, such as 0.3G; 0: any number."""
    width: Literal["given", "fit"] = "given"
    """fit: train.width and train.repeat are found among those that keep params and macs, by short trainings."""
    pressure: bool = False
    """Let the search feel params and macs: alphas that promise too costly cells are pushed to cheaper ones."""
    latency_ms: float = 0.0
    """Most milliseconds from pixels to scores (flow counts, decoding does not), in the median, as measured where the
    search ends; 0: any time."""
    latency_batch: int = 1
    """Views that the network is given at once when it is measured."""
    latency_threads: int = 0
    """CPU threads then; 0: those of the run."""
    latency_device: Literal["run", "cpu", "cuda"] = "run"
    """Where it is measured; run: where the run is."""

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return bool(self.params or self.macs or self.latency_ms)


@dataclass
class RunConfig:
    """A whole run: search, derivation, training, test and report."""

    preset: str = "pvnas-l"
    """Name of the preset that this config started from."""
    seed: int = 0
    """Seed of everything random."""
    stem: StemKind = "stride4"
    """stride4: 1x7x7 convolution and max-pooling (P); stride2: one 1x3x3 convolution, for crops below 100 pixels;
    -time: and a 3x1x1 convolution after that, so that the first cells see how neighbouring frames differ; -time2: the
    same, of which every other frame is left, so that a clip of twice the frames costs little more."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes a GPU if there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs convolutions in bfloat16; alphas, softmax and loss stay in fp32."""
    threads: int = 0
    """CPU threads of a process; 0 takes one per core. Another number changes the last bits of the result."""
    determinism: Literal["strict", "fast"] = "strict"
    """Of several processes: strict makes the bits of a single one, fast leaves the order of sums to the backend."""
    accept_drift: bool = False
    """Whether a run goes on under other threads, versions, kernels or another GPU than it was begun with."""
    lost_after: float = 600.0
    """Of several processes: the seconds after which one that does not answer the others counts as lost."""
    checkpoint_minutes: float = 10.0
    """Save a checkpoint at least this often, besides at the end of every epoch."""
    tensorboard: bool = True
    """Write TensorBoard scalars where the tensorboard package is installed."""
    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    test: TestConfig = field(default_factory=TestConfig)

    @property
    def decoded_short_side(self) -> int:
        """Length of the shorter side, in pixels, to which this run scales what it decodes."""
        return max(self.search.augment.short_side_max, self.train.augment.short_side_max, self.test.short_side)

    @property
    def view(self) -> tuple[int, int, int]:
        """Frames, height and width of what the network sees of a video at once in the test: what its costs are of."""
        return self.clip.frames, self.test.crop, self.test.crop

    @property
    def split_seed(self) -> int:
        """The seed of what is held out for validation and test."""
        return self.seed if self.data.split_seed < 0 else self.data.split_seed

    @property
    def network(self) -> NetworkConfig:
        """The derived network that this run trains."""
        train = self.train
        return NetworkConfig(train.layout, train.width, train.repeat, self.stem, train.head, self.clip.channels)


# Fields that may differ between an interrupted run and the command that resumes it: they change no number.
HARMLESS_FIELDS = frozenset(
    {
        *("data.workers", "data.deadline", "data.max_bad_share", "checkpoint_minutes"),
        *("search.checkpointing", "search.graphs", "train.graphs", "tensorboard", "lost_after", "accept_drift"),
    }
)

# Fields that say where the videos lie: a run goes on wherever they are moved, as long as they are the same.
LOCATION_FIELDS = frozenset({"data.path", "data.format", "data.annotations", "data.allow_outside", "data.splits_of"})
