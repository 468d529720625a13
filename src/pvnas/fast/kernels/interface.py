"""What a set of kernels must offer: the one description of every kernel, its arguments and its shapes.

There are three sets with these functions: ``pytorch`` (the reference, a few lines each), ``cpp`` (C++ for a CPU) and
``triton_set`` (Triton for a GPU). A kernel's three forms lie in one folder: ``depthwise/reference.py``, ``cpu.py`` with
its C++ sources, and ``triton.py``.

Legend: F folded frames (clips times frames), C channels of a node, k edges that leave the node, H and W pixels, A and B
channels that enter and leave an edge's convolution, T frames of a clip, t taps over time (1 or 3). Tensors of several
edges hold their channels side by side: (F, kC, H, W). Pictures lie in channels-last memory, or are some neighbouring
channels of such (``tensors.rows_of``); what is returned is dense. Gradients are called ``grad`` where they come in and
``..._grad`` where they go out. Sums are made in float32, of float64 in float64. Those of the C++ and of the Triton set
have an order that depends on the sizes alone: the same clips give the same bits, whatever the number of threads.

``Any`` stands for such pictures, or for what is not in memory and only has their shape: a set may return it, and that
set's ``channel_conv...`` functions alone read it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Normed(NamedTuple):
    """A tensor (F, C, H, W) that a batch norm reads, and what it normalises by, (C,) each.

    Its output is (z - mean) * inverse_std, or with its parameters (z - mean) * inverse_std * weight + bias.
    """

    z: Tensor
    mean: Tensor
    inverse_std: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None


class Kernels(Protocol):
    """One set of kernels. Any module with these functions is one."""

    NAME: str
    """What ``environment.json`` calls it: pytorch, c++ or triton."""

    # ---- depthwise/: 3x3 depthwise convolutions of what a ReLU gives

    def depthwise(
        self, x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None
    ) -> Any:
        """Return the convolution (F, kC, H', W') of ReLU(x) with kernels (kC, 1, 3, 3), padded to keep H and W.

        x has kC channels, or C that every edge reads. ``norm``: of ReLU(batch norm of x) instead, with x its input.
        """

    def depthwise_input_grad(
        self, grad: Tensor, kernel: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, into: Tensor | None = None
    ) -> Tensor:
        """Return the gradient for the ReLU(x) that ``depthwise`` reads, of x's shape; over edges that share x, the sum.

        ``into``: add to this instead.
        """

    def depthwise_kernel_grad(
        self, grad: Tensor, x: Tensor, stride: int = 1, dilation: int = 1, norm: Normed | None = None
    ) -> Tensor:
        """Return the gradient for the kernels of ``depthwise``, (kC, 1, 3, 3), in the type of sums."""

    def depthwise_norm_grad(self, grad: Tensor, kernel: Tensor, norm: Normed) -> tuple[Tensor, Tensor]:
        """Return the gradient for the output of the batch norm before ``depthwise``, and what it takes to go on.

        That is (2, 1, kC): sums over all pixels, as ``mixed_grad_sums`` returns them for one edge of kC channels.
        """

    # ---- spatial_conv/: dense 3x3 convolutions of what a ReLU gives

    def spatial_conv(self, x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
        """Return the convolution (F, B, H', W') of ReLU(x) (F, A, H, W) with a kernel (B, A, 3, 3), padded by 1."""

    def spatial_conv_grads(
        self,
        grad: Tensor,
        kernel: Tensor,
        x: Tensor,
        stride: int = 1,
        into: Tensor | None = None,
        kernel_grad: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the gradients for the ReLU(x) that ``spatial_conv`` reads and, where asked for, for the kernel.

        ``into``: add that for ReLU(x) to this instead.
        """

    # ---- channel_conv/: convolutions 1x1x1 and 3x1x1, products of matrices over channels

    def channel_conv(
        self,
        x: Any,
        kernel: Tensor,
        edges: int,
        frames: int = 1,
        relu: bool = False,
        into: Tensor | None = None,
        step: int = 0,
    ) -> Tensor:
        """Return the convolutions (F, kB, H, W) of x with kernels (kB, A, t, 1); x has kA channels, or A for all edges.

        ``relu``: of ReLU(x). ``into``: write to this tensor, from its first channel on, the channels of an edge
        ``step`` channels behind those of the edge before (0: B).
        """

    def channel_conv_statistics(
        self, x: Any, kernel: Tensor, edges: int, frames: int = 1, relu: bool = False, eps: float = 0.0
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Return what ``channel_conv`` returns and the ``batch_statistics`` of it."""

    def channel_conv_input_grad(
        self,
        grad: Any,
        kernel: Tensor,
        edges: int,
        frames: int = 1,
        shared: bool = False,
        first: int = 0,
        step: int = 0,
        behind_relu: Tensor | None = None,
    ) -> Tensor:
        """Return the gradient for what ``channel_conv`` reads, (F, kA, H, W); ``shared``: over edges the sum, of A.

        ``first``, ``step``: where the first edge's channels begin in ``grad``, and how far those of the next edge lie
        behind (0: B). ``behind_relu``: zero where this tensor is not above zero.
        """

    def channel_conv_kernel_grad(
        self,
        grad: Any,
        x: Any,
        kernel: Tensor,
        edges: int,
        frames: int = 1,
        relu: bool = False,
        first: int = 0,
        step: int = 0,
    ) -> Tensor:
        """Return the gradient for the kernels of ``channel_conv``, (kB, A, t, 1), in the type of sums.

        ``first``, ``step``: as of ``channel_conv_input_grad``.
        """

    # ---- batchnorm/: batch norms, mixed by weights, and their backward pass

    def batch_statistics(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, biased variance and 1 / sqrt(variance + eps) of each channel, (C,) in the type of sums."""

    def normalise(self, normed: Normed) -> Tensor:
        """Return the batch norm's output, (F, C, H, W)."""

    def add_mixed(
        self,
        sums: Tensor,
        per_edge: Sequence[Normed],
        shared: Sequence[Normed],
        weights: Tensor,
        *,
        begin: bool,
        scales: Tensor | None = None,
    ) -> None:
        """Add to k nodes' sums (F, kC, H, W) what the operations of the edge to each put out, times mixing weights.

        ``per_edge``: operations that each edge has for itself, (F, kC, H, W); ``shared``: those that all edges share,
        (F, C, H, W); ``weights``: (k, operations), those of ``per_edge`` first. ``begin``: set the sums instead.
        ``scales``: of each operation and clip, (operations, N), in the type of sums, by which it is multiplied, too.
        """

    def mixed_grad_sums(
        self,
        grad: Tensor,
        per_edge: Sequence[Normed],
        shared: Sequence[Normed],
        edges: int,
        scales: Tensor | None = None,
    ) -> Tensor:
        """Return sums over all pixels, (1 + operations, k, C): of the nodes' gradients, and of them times each output.

        ``grad``: (F, kC, H, W); ``scales``: of each clip, (N,) in the type of sums, by which it is multiplied. Outputs
        are those before the norms' parameters: the sums are the gradients for the bias and for the weight of a norm
        that is added unmixed. Over C, all but the first are the gradients for the mixing weights.
        """

    def per_edge_grads(
        self,
        grad: Tensor,
        per_edge: Sequence[Normed],
        weights: Tensor,
        sums: Tensor,
        *,
        of_batch: bool,
        scales: Tensor | None = None,
    ) -> list[Any]:
        """Return the gradients for the inputs of the batch norms of ``per_edge``, (F, kC, H, W) each.

        ``sums``: what ``mixed_grad_sums`` has returned with these ``scales``; ``of_batch``: whether the norms'
        statistics are the batch's, else they are constants. The gradients may read ``grad`` when they are read
        themselves.
        """

    def shared_grads(
        self, grad: Tensor, shared: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
    ) -> list[Tensor]:
        """Return the gradients for the inputs of ``shared``, (F, C, H, W) each.

        Those are both poolings' batch norms and, if it is there, identity as the third, which has no norm: see
        ``tensors.unnormed``. ``weights``: (k, shared); ``sums``: (1 + shared, k, C).
        """

    # ---- pool/: both 3x3 poolings of a node in one pass

    def pool(self, x: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return averages without padding, maxima, and which pixel each maximum is, the first of equal ones.

        (F, C, H', W') each, the last in numbers that the set's ``pool_grad`` reads.
        """

    def pool_grad(
        self,
        average_grad: Tensor | None,
        max_grad: Tensor | None,
        which: Tensor | None,
        x: Tensor,
        stride: int,
        relu_grad: Tensor | None,
        identity_grad: Tensor | None,
        into: Tensor | None = None,
    ) -> Tensor:
        """Return the gradient for a node x (F, C, H, W) from those of its averages and maxima, or of one of them.

        ``which`` is read where there is one of the maxima. ``relu_grad``: that for ReLU(x), ``identity_grad``: that for
        x itself, are taken in. ``into``: add to this instead, which may be some channels of a cell's.
        """

    # ---- pixels/: every other pixel, for what runs at stride 2

    def pick_pixels(self, x: Tensor, offset: int) -> Tensor:
        """Return ReLU(x) at every other row and column from ``offset`` (0 or 1) on, (F, C, ceil(H/2), ceil(W/2)).

        Zero past the picture.
        """

    def spread_pixels(self, even: Tensor, odd: Tensor | None, x: Tensor, into: Tensor | None) -> Tensor:
        """Return the backward pass of ``pick_pixels``: zeros of x's shape with these pixels; ``into``: add to this."""

    # ---- flow/: what a network may see in place of colours

    def optical_flow(self, now_PHW: Tensor, later_PHW: Tensor, *, steady: bool = False) -> Tensor:
        """Return where each pixel of pairs of frames (P, H, W) goes: (P, 2, H, W), see ``data.clips.optical_flow``."""
