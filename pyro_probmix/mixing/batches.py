"""Nodes and their partners: the batch that every mixing method consumes, and the loader of such batches."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from pyro.distributions import is_validation_enabled
from torch import Tensor

if TYPE_CHECKING:
    from pyro_probmix.mixing.graphs import SamplingGraph

__all__ = ["PairBatch", "PairLoader", "check_finite", "check_positive_integer", "name_rows"]

_ROWS_NAMED = 5
_VALUES_AT_ONCE = 1 << 24


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that holds NaN or an infinity.

    Integer and boolean tensors always pass. Looking at the values waits for the tensor's device.

    Args:
        name: The argument's name, as the caller's user typed it.
        tensor: Data of shape ``(N, ...)``; the rows along the first dimension are named in the error.

    Raises:
        ValueError: Naming the argument and its first offending rows.

    Example:
        >>> check_finite("x", torch.tensor([0.0, float("nan"), 1.0]))
        Traceback (most recent call last):
        ...
        ValueError: x: expected finite values, got NaN or inf in 1 of 3 rows (row 1)
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    if tensor.ndim == 0:
        if not bool(torch.isfinite(tensor)):
            raise ValueError(f"{name}: expected a finite value, got {tensor.item()}")
        return
    if tensor.numel() == 0:
        return
    # Piece by piece: a file that is mapped into memory need not fit into it.
    pieces = tensor.split(max(1, _VALUES_AT_ONCE * len(tensor) // tensor.numel()))
    if all(bool(torch.isfinite(piece).all()) for piece in pieces):
        return
    bad = torch.cat([(~torch.isfinite(piece)).reshape(len(piece), -1).any(dim=1) for piece in pieces])
    raise ValueError(f"{name}: expected finite values, got NaN or inf in {name_rows(bad)}")


def name_rows(bad: Tensor) -> str:
    """Return how many rows are bad and the first of them, for an error.

    Args:
        bad: Booleans of shape ``(N,)``.

    Example:
        >>> name_rows(torch.tensor([False, True, True]))
        '2 of 3 rows (rows 1, 2)'
    """
    rows = bad.nonzero().squeeze(1).tolist()
    named = ", ".join(map(str, rows[:_ROWS_NAMED])) + (", ..." if len(rows) > _ROWS_NAMED else "")
    return f"{len(rows)} of {len(bad)} rows ({'row' if len(rows) == 1 else 'rows'} {named})"


def check_positive_integer(name: str, value: SupportsIndex) -> int:
    """Return the value as an ``int``, or refuse it.

    Args:
        name: The argument's name, as the caller's user typed it.
        value: An integer of Python or NumPy, at least 1.

    Raises:
        TypeError: If the value is no integer.
        ValueError: If the value is less than 1.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if operator.index(value) < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
    return operator.index(value)


def may_look_at(tensor: Tensor) -> bool:
    """Whether values of ``tensor`` are checked: with validation on, where nothing has to wait for them."""
    return is_validation_enabled() and tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_batch(batch: Any) -> None:
    """Refuse what is no :class:`PairBatch`, and where values are looked at, partners that are not in it."""
    if not isinstance(batch, PairBatch):
        raise TypeError(f"batch: expected a PairBatch, got {type(batch).__name__}")
    if may_look_at(batch.partner):
        outside = (batch.partner < 0) | (batch.partner >= len(batch))
        if bool(outside.any()):
            last = len(batch) - 1
            raise ValueError(f"partner: expected positions from 0 to {last}, got others in {name_rows(outside)}")


def check_weight(weight: Tensor | None, size: int) -> None:
    """Refuse weights of nodes that have not one number a node; values are not looked at."""
    if weight is not None and weight.shape != (size,):
        raise ValueError(f"weight: expected shape ({size},), one number per row of x, got {tuple(weight.shape)}")


def check_mask(mask: Tensor | None, size: int, y: Tensor | None) -> None:
    """Refuse a mask that is not boolean, or has neither one value a node nor one an output."""
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected dtype torch.bool, got {mask.dtype}")
    shapes = [(size,)] if y is None else [(size,), tuple(y.shape)]
    if tuple(mask.shape) not in shapes:
        expected = " or ".join(dict.fromkeys(map(str, shapes)))
        raise ValueError(f"mask: expected shape {expected}, got {tuple(mask.shape)}")


def fill_missing(y: Tensor, mask: Tensor) -> Tensor:
    """``y`` with the first observed value, which is a legal one, wherever none was observed.

    Args:
        y: Outputs, shape ``(N, ...)``; anything, NaN included, where they are not observed.
        mask: Which are observed, boolean, of shape ``(N,)`` or that of ``y``.

    Raises:
        ValueError: If none is observed.
    """
    if not bool(mask.any()):
        raise ValueError("mask: expected at least one observed output, got none")
    return legal_labels(y, mask.reshape(mask.shape + (1,) * (y.dim() - mask.dim())), -y.dim())


def legal_labels(y: Tensor, mask: Tensor, dim: int) -> Tensor:
    """``y`` with the first observed value wherever none was observed, without a look at the values.

    Args:
        y: Outputs.
        mask: Which are observed, of the shape of ``y``, or one a node, broadcasting with ``y``.
        dim: The nodes' dimension in ``y``, negative.
    """
    first = mask.flatten().to(torch.uint8).argmax().unsqueeze(0)
    legal = y.flatten().index_select(0, first) if mask.shape == y.shape else y.index_select(dim, first)
    return torch.where(mask, y, legal)


@dataclass(eq=False, repr=False)  # not frozen: Lightning converts what is in it to another precision
class PairBatch:
    """B nodes and, for each of them, the position within the batch of the node it is mixed with.

    Node ``i`` carries the edge ``(i, partner[i])``. Only shapes, types and devices are checked, never values,
    so building a batch does not wait for a device.

    Args:
        x: Inputs, shape ``(B, ...)``, B >= 1.
        y: Outputs, shape ``(B, ...)``, or None.
        partner: Integer tensor (``torch.int64``) of shape ``(B,)`` with values in ``0..B-1``.
        weight: How much each node counts, of shape ``(B,)``, at least 0; an edge counts with the product of its
            nodes' weights, as if nodes were repeated. None for weights of one.
        mask: Which outputs are observed, boolean, of shape ``(B,)`` or that of ``y``; an output of an edge counts
            where both its nodes have it. None where all are observed.

    Raises:
        TypeError: If an argument is not a tensor, ``partner`` does not hold 64-bit integers, or ``mask`` booleans.
        ValueError: If the batch is empty, or lengths or devices do not match.

    Example:
        >>> batch = PairBatch(torch.zeros(3, 2), torch.zeros(3), torch.tensor([1, 2, 0]))
        >>> len(batch)
        3
        >>> batch.to("cpu").y[batch.partner].shape
        torch.Size([3])
    """

    x: Tensor
    y: Tensor | None
    partner: Tensor
    weight: Tensor | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.x, Tensor):
            raise TypeError(f"x: expected a tensor, got {type(self.x).__name__}")
        if self.x.ndim == 0 or self.x.shape[0] == 0:
            raise ValueError(f"x: expected shape (B, ...) with B >= 1, got {tuple(self.x.shape)}")
        for name in ("y", "partner", "weight", "mask"):
            value = getattr(self, name)
            if value is None and name != "partner":
                continue
            if not isinstance(value, Tensor):
                raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
            if value.device != self.x.device:
                raise ValueError(f"{name}: expected the device of x, {self.x.device}, got {value.device}")
        size = self.x.shape[0]
        if self.y is not None and self.y.shape[:1] != (size,):
            raise ValueError(f"y: expected shape ({size}, ...), as many rows as x, got {tuple(self.y.shape)}")
        if self.partner.dtype != torch.int64:
            raise TypeError(f"partner: expected dtype torch.int64, got {self.partner.dtype}")
        if self.partner.shape != (size,):
            got = tuple(self.partner.shape)
            raise ValueError(f"partner: expected shape ({size},), one position per row of x, got {got}")
        check_weight(self.weight, size)
        check_mask(self.mask, size, self.y)

    def __len__(self) -> int:
        return self.x.shape[0]

    def __repr__(self) -> str:
        shapes = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return f"PairBatch({', '.join(f'{name}: {tuple(value.shape)}' for name, value in shapes.items())})"

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        """Return the same batch on another device."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: value if value is None else value.to(device, non_blocking=non_blocking)
            for name, value in given.items()
        }
        return replace(self, **moved)


class PairLoader:
    """Batches of one epoch per iteration, drawn anew each time from a sampling graph.

    An epoch has ``ceil(N / batch_size)`` batches on every graph. Each draws its edges in proportion to w_ij,
    so the mean over an epoch's batches of the batch-mean loss is an unbiased estimate of the full loss. On graphs
    other than the complete graph this asks that the expected loss of an edge be the same from both its ends, as
    it is for a symmetric mixing coefficient. What a mini-batch holds is said at the graph's ``sample_batch``.
    Each iteration is an epoch, of which the graph is told before the first batch.

    Indices are drawn on the CPU and moved to where the data live. A full batch does not copy the data.

    Args:
        x: Inputs, shape ``(N, ...)``, on any device.
        y: Outputs, shape ``(N, ...)``, on the device of ``x``, or None.
        graph: Which pairs are mixed; ``graph.num_nodes`` is N.
        batch_size: Nodes per batch; None, or N and more, is the full batch.
        drop_last: Leave out a last batch of fewer than ``batch_size`` nodes.
        weight: As for :class:`PairBatch`, shape ``(N,)``, up to a common factor: batches have it with mean one over
            all N.
        mask: As for :class:`PairBatch`, shape ``(N,)`` or that of ``y``, which may be anything, NaN included, where
            it is not observed.
        generator: Source of the random numbers, on the CPU; None is torch's default generator.

    Attributes:
        epoch: The number of the next epoch, counted from 0; may be set, to go on after an interruption.

    Raises:
        TypeError: If ``x`` or ``y`` is not a tensor, ``graph`` no graph, or ``batch_size`` no integer.
        ValueError: If ``x`` or ``y`` is not finite or not as long as the graph, ``batch_size < 1``, or
            ``drop_last`` leaves no batch.

    Example:
        >>> from pyro_probmix.mixing.graphs import CompleteGraph
        >>> loader = PairLoader(torch.randn(10, 3), torch.randn(10), CompleteGraph(10), batch_size=4)
        >>> [len(batch) for batch in loader]
        [4, 4, 2]
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        graph: SamplingGraph,
        batch_size: int | None = None,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a tensor, got {type(x).__name__}")
        if x.dim() == 0:
            raise ValueError("x: expected shape (N, ...), got ()")
        if not hasattr(graph, "check_data"):
            raise TypeError(f"graph: expected a graph, such as CompleteGraph(n), got {type(graph).__name__}")
        for name, value in (("weight", weight), ("mask", mask)):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
        check_mask(mask, len(x), y)
        if y is not None and mask is not None:
            y = fill_missing(y, mask)
        graph.check_data(x, y)
        if weight is not None:
            check_weight(weight, len(x))
            check_finite("weight", weight)
            if bool((weight < 0).any()) or not bool((weight > 0).any()):
                raise ValueError("weight: expected numbers of at least 0 that are not all 0")
            weight = weight / weight.to(torch.promote_types(weight.dtype, torch.float32)).mean()
        if batch_size is not None:
            batch_size = check_positive_integer("batch_size", batch_size)
            if drop_last and batch_size > graph.num_nodes:
                raise ValueError(
                    f"batch_size: expected at most {graph.num_nodes}, the number of nodes, with drop_last, "
                    f"got {batch_size}"
                )
        self.x = x
        self.y = y
        self.graph = graph
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.generator = generator
        self.weight = weight
        self.mask = mask
        self.epoch = 0

    def __len__(self) -> int:
        num_nodes = self.graph.num_nodes
        size = self.batch_size or num_nodes
        return num_nodes // size if self.drop_last else -(-num_nodes // size)

    def __iter__(self) -> Iterator[PairBatch]:
        self.graph.start_epoch(self.epoch)
        self.epoch += 1
        num_nodes = self.graph.num_nodes
        if self.batch_size is None or self.batch_size >= num_nodes:
            yield self._batch(None)
            return
        order = torch.randperm(num_nodes, generator=self.generator, device="cpu")
        for chunk in order.split(self.batch_size)[: len(self)]:
            yield self._batch(chunk)

    def _batch(self, chunk: Tensor | None) -> PairBatch:
        rows = {"weight": self.weight, "mask": self.mask}
        return self.graph.pair_batch(self.x, self.y, self.generator, chunk=chunk, **rows)
