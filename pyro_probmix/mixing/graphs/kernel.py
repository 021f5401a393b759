"""Partners in proportion to a Gaussian kernel of the distance in x, in y, or in both."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_probmix._checks import check_number
from pyro_probmix.mixing.graphs.base import PartnerGraph, uniform
from pyro_probmix.mixing.graphs.search import as_points, check_search, nearest_neighbors, squared_distances

__all__ = ["KernelGraph"]

_HEURISTIC_POINTS = 1000
_VALUES = 2**22


class KernelGraph(PartnerGraph):
    r"""Every node with every node, in proportion to how near they are.

    .. math:: w_{ij} = \frac{k_{ij}}{N \sum_l k_{il}}, \qquad
        k_{ij} = \exp\left(-\frac{|x_i - x_j|^2}{2 h_x^2} - \frac{|y_i - y_j|^2}{2 h_y^2}\right)

    With y alone this is C-Mixup (Yao et al., 2022, "C-Mixup: Improving Generalization in Regression"); as there, a
    node may be its own partner. A wide kernel gives the complete graph, a narrow one leaves the points as they are.
    What is not given leaves its factor out.

    A batch of B sources evaluates B rows of the kernel, a part at a time: O(B N) time, O(N) memory. With
    ``num_neighbors`` the kernel is cut off: the partners of a node are itself and its k nearest nodes at these
    bandwidths, which are found once; a batch then takes O(B k).

    Args:
        x: Inputs, shape ``(N, ...)``, or None.
        y: Outputs, shape ``(N, ...)``, or None; one of both is needed.
        bandwidth_x: h_x > 0, in units of x. Default: the median of the positive distances among 1,000 evenly spaced
            rows, or 1 where all points are equal.
        bandwidth_y: h_y > 0, in units of y; the default likewise.
        num_neighbors: k, from 1 to N-1; None for no cut.
        approximate: Find the k nearest with faiss, of the extra ``approximate``.

    Attributes:
        bandwidth_x: h_x, None without x.
        bandwidth_y: h_y, None without y.

    Raises:
        TypeError: If ``x`` or ``y`` is not a real tensor, or ``num_neighbors`` no integer.
        ValueError: If neither is given, they differ in length or are not finite (rows are named), a bandwidth is
            not positive or belongs to what is not given, distances in bandwidths overflow, k is not in 1..N-1, or
            ``approximate`` comes without ``num_neighbors``.
        ImportError: If ``approximate`` and faiss is not installed.

    Example:
        >>> y = torch.tensor([0.0, 0.1, 5.0, 5.1])
        >>> KernelGraph(y=y, bandwidth_y=0.5).pair_batch(y, y).partner // 2
        tensor([0, 0, 1, 1])
    """

    def __init__(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        bandwidth_x: float | None = None,
        bandwidth_y: float | None = None,
        num_neighbors: int | None = None,
        approximate: bool = False,
    ) -> None:
        scaled_x, self.bandwidth_x = _in_bandwidths("x", x, bandwidth_x)
        scaled_y, self.bandwidth_y = _in_bandwidths("y", y, bandwidth_y)
        given = [points for points in (scaled_x, scaled_y) if points is not None]
        if not given:
            raise ValueError("x: expected x, y or both, got None for both")
        if len(given[0]) != len(given[-1]):
            raise ValueError(f"y: expected as many rows as x, {len(given[0])}, got {len(given[-1])}")
        if approximate and num_neighbors is None:
            raise ValueError("approximate: expected num_neighbors beside it, got None")
        points = torch.cat(given, dim=1)
        super().__init__(len(points))
        self.num_neighbors: int | None = None
        if num_neighbors is None:
            self._points = points
            return
        self.num_neighbors = check_search(self.num_nodes, num_neighbors)
        nodes = torch.arange(self.num_nodes, device="cpu")
        neighbors = nearest_neighbors(points, self.num_neighbors, approximate=approximate)
        self._candidates = torch.cat((nodes.unsqueeze(1), neighbors), dim=1)
        squares = squared_distances(points, nodes, self._candidates)
        self._cumulative_kernel = squares.div_(-2).exp_().cumsum(dim=1)

    def __repr__(self) -> str:
        names = ("num_nodes", "bandwidth_x", "bandwidth_y", "num_neighbors")
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)}' for name in names)})"

    def sample_partners(self, sources: Tensor, generator: torch.Generator | None = None) -> Tensor:
        places = 1 - uniform(len(sources), generator)
        if self.num_neighbors is not None:
            columns = _search_rows(self._cumulative_kernel[sources], places)
            return self._candidates[sources, columns]
        size = max(1, _VALUES // self.num_nodes)
        parts = zip(sources.split(size), places.split(size), strict=True)
        return torch.cat([_search_rows(self.kernel(rows).cumsum(dim=1), some) for rows, some in parts])

    def kernel(self, nodes: Tensor) -> Tensor:
        """Return k_ij of some nodes with all, zero where it is cut off, shape ``(M, N)``.

        Args:
            nodes: Shape ``(M,)``, 64-bit integers on the CPU.
        """
        if self.num_neighbors is not None:
            kept = self._cumulative_kernel[nodes].diff(dim=1, prepend=self._cumulative_kernel.new_zeros(len(nodes), 1))
            return kept.new_zeros(len(nodes), self.num_nodes).scatter_(1, self._candidates[nodes], kept)
        # Squares of differences: the expanded square would lose the digits of near points far from the origin.
        mode = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(self._points[nodes], self._points, compute_mode=mode)
        return distances.square_().div_(-2).exp_()


def _search_rows(cumulative: Tensor, places: Tensor) -> Tensor:
    """Return the column of each row that its place, in (0, 1], falls into; never one of weight zero."""
    return torch.searchsorted(cumulative, (places * cumulative[:, -1]).unsqueeze(1)).squeeze(1)


def _in_bandwidths(name: str, data: Tensor | None, bandwidth: float | None) -> tuple[Tensor | None, float | None]:
    """Return the data in units of the bandwidth, and the bandwidth."""
    if bandwidth is not None:
        check_number(f"bandwidth_{name}", bandwidth)
    if data is None:
        if bandwidth is not None:
            raise ValueError(f"bandwidth_{name}: expected None without {name}, got {bandwidth}")
        return None, None
    points = as_points(name, data)
    if bandwidth is None:
        some = points[:: -(-len(points) // _HEURISTIC_POINTS)]
        distances = torch.pdist(some)
        positive = distances[distances > 0]
        bandwidth = positive.median().item() if len(positive) else 1.0
    return as_points(f"{name} / bandwidth_{name}", points / bandwidth), float(bandwidth)
