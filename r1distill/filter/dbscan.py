"""DBSCAN whose memory does not grow with the neighbourhoods, for sets of which scikit-learn's cannot hold the neighbours.

The labels are those of scikit-learn's DBSCAN (https://www.aaai.org/Papers/KDD/1996/KDD96-037.pdf): a core has at least
`min_samples` points within `eps`, itself included; cores within `eps` of each other are of one cluster; another point within
`eps` of a core is of that core's cluster, of the lowest-numbered one where there are several, which is the one that reaches
it first; clusters are numbered by their first core.

All pairs are looked at twice, a block of points against the later ones: to count neighbours, and to join the cores. Points
are put into blocks by where they are, and the triangle inequality skips what no point of a block can reach. Distances are
of a matrix product in float32; those so near to `eps` that its rounding could decide are taken again in float64.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
BLOCK, TILE = 512, 2048  # points on either side of a matrix of distances, which is 4 MB
CENTRES = 64  # blocks whose distances to all points are taken at once
EDGES = 1 << 20  # pairs that are held until they are joined
EXACT = 1 << 14  # pairs whose distances are taken again at once


@dataclass(frozen=True, eq=False)
class Layout:
    """Points in blocks, in the order of `order (N,)`, block b from `starts[b]` to `starts[b + 1]`.

    `left (N, D + 2)` times `right (N, D + 2)` transposed is minus half the squared distance, in float32, off by at most
    `error`. `points (N, D)` are those that were given, in their own order. `centres (B, D)` and `radii (B,)` enclose the
    blocks.
    """

    points: NDArray[np.floating]
    order: Places
    starts: Places
    left: NDArray[np.float32]
    right: NDArray[np.float32]
    centres: NDArray[np.float32]
    radii: NDArray[np.float64]
    error: float


def dbscan(points: NDArray[np.floating], eps: float, min_samples: int) -> tuple[Places, NDArray[np.bool_]]:
    """The cluster of each of `points (N, D)`, -1 for none, and whether it is a core; both `(N,)`. Distances are Euclidean.

    Raises ValueError for points that are not finite.
    """
    if not np.isfinite(points).all():
        raise ValueError("DBSCAN: points that are not finite")
    n = len(points)
    if not n:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    layout = layout_of(points)
    counts = np.zeros(n, dtype=np.int64)
    n_blocks = len(layout.starts) - 1
    touching = np.zeros((n_blocks, n_blocks), dtype=bool)
    block_of = np.repeat(np.arange(n_blocks), np.diff(layout.starts))
    for block, first, second in neighbours(layout, eps, None):
        start, end = layout.starts[block], layout.starts[block + 1]
        counts[start:end] += np.bincount(first - start, minlength=end - start)
        np.add.at(counts, second[second >= end], 1)
        touching[block, block_of[second]] = True
    core = counts >= min_samples
    root, border, reached_by = join(layout, eps, touching, core)
    return numbered(layout.order, core, root, border, reached_by), in_given_order(layout.order, core)


def join(
    layout: Layout, eps: float, touching: NDArray[np.bool_], core: NDArray[np.bool_]
) -> tuple[Places, Places, Places]:
    """(root, border, reached_by), all places in the layout: cores of one cluster have one root `(N,)`; the other two are
    pairs of a point that is no core and a core within eps of it. There are fewer than min_samples of them a point.
    """
    root = np.arange(len(core))
    edges: list[tuple[Places, Places]] = []
    waiting = 0
    border: list[Places] = [np.zeros(0, dtype=np.int64)]
    reached_by: list[Places] = [np.zeros(0, dtype=np.int64)]
    for block, first, second in neighbours(layout, eps, touching):
        # pairs inside of the block come in both orders
        both_orders = second < layout.starts[block + 1]
        of_cores = core[first] & core[second]
        ends = core[first] & ~core[second]
        border.append(second[ends])
        reached_by.append(first[ends])
        ends = ~core[first] & core[second] & ~both_orders
        border.append(first[ends])
        reached_by.append(second[ends])
        apart = of_cores & (root[first] != root[second])
        edges.append((first[apart], second[apart]))
        waiting += int(apart.sum())
        if waiting > EDGES:
            root, edges, waiting = united(root, edges), [], 0
    return united(root, edges), np.concatenate(border), np.concatenate(reached_by)


def united(root: Places, edges: list[tuple[Places, Places]]) -> Places:
    """The roots `(N,)` after the sets of the two ends of each edge were united."""
    if not edges:
        return root
    sparse = importlib.import_module("scipy.sparse")  # comes with scikit-learn, of the extra `clusters`
    csgraph = importlib.import_module("scipy.sparse.csgraph")
    first, second = (root[np.concatenate(side)] for side in zip(*edges, strict=True))
    graph = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(len(root), len(root)))
    return csgraph.connected_components(graph.tocsr(), directed=False)[1].astype(np.int64)[root]


def numbered(order: Places, core: NDArray[np.bool_], root: Places, border: Places, reached_by: Places) -> Places:
    """The cluster of each point `(N,)`, both in the order in which they were given: that of its first core."""
    places = np.flatnonzero(core)
    places = places[np.argsort(order[places], kind="stable")]
    _, first, inverse = np.unique(root[places], return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    labels = np.full(len(order), len(order))
    labels[places] = number[inverse]
    lowest = labels.copy()
    np.minimum.at(lowest, border, labels[reached_by])
    lowest[lowest == len(order)] = -1
    return in_given_order(order, lowest)


def in_given_order(order: Places, values: NDArray) -> NDArray:
    given = np.empty_like(values)
    given[order] = values
    return given


def neighbours(layout: Layout, eps: float, touching: NDArray[np.bool_] | None) -> Iterator[tuple[int, Places, Places]]:
    """(block, first, second): pairs of places within eps, `first` in the block and `second` in it or later.

    Pairs inside of a block come in both orders, and each point with itself. With `touching (B, B)` only the second places in
    blocks that touch the first's are looked at.
    """
    limit = -0.5 * eps * eps
    block_of = np.repeat(np.arange(len(layout.starts) - 1), np.diff(layout.starts))
    for block, candidates in reachable(layout, eps):
        start, end = layout.starts[block], layout.starts[block + 1]
        if touching is not None:
            candidates = candidates[touching[block, block_of[candidates]]]
        left = layout.left[start:end]
        for at in range(0, len(candidates), TILE):
            places = candidates[at : at + TILE]
            product = left @ layout.right[places].T
            found = np.flatnonzero(product >= limit - layout.error)
            if not len(found):
                continue
            row, column = np.divmod(found, len(places))
            near = product.reshape(-1)[found] <= limit + layout.error
            first, second = row + start, places[column]
            if near.any():
                keep = ~near
                keep[near] = within(layout, first[near], second[near], eps)
                first, second = first[keep], second[keep]
            yield block, first, second


def within(layout: Layout, first: Places, second: Places, eps: float) -> NDArray[np.bool_]:
    """Whether pairs of places are within eps, in float64."""
    answers = [np.zeros(0, dtype=bool)]
    for at in range(0, len(first), EXACT):
        pair = [layout.points[layout.order[side[at : at + EXACT]]].astype(np.float64) for side in (first, second)]
        answers.append(np.sqrt(np.square(pair[0] - pair[1]).sum(axis=1)) <= eps)
    return np.concatenate(answers)


def reachable(layout: Layout, eps: float) -> Iterator[tuple[int, Places]]:
    """Each block with the places in it and after it that may be within eps of one of its points.

    Nothing farther from a block's centre than its radius and eps is: the triangle inequality.
    """
    halves = -layout.right[:, -2]
    points = layout.left[:, :-2]
    n_blocks = len(layout.radii)
    for begin in range(0, n_blocks, CENTRES):
        group = slice(begin, min(begin + CENTRES, n_blocks))
        start = layout.starts[begin]
        centres = layout.centres[group]
        squares = 2 * halves[start:, None] - 2 * (points[start:] @ centres.T) + np.square(centres).sum(axis=1)
        for block in range(group.start, group.stop):
            most = (layout.radii[block] + eps) ** 2 * (1 + 1e-5) + 4 * layout.error
            skip = layout.starts[block] - start
            yield block, np.flatnonzero(squares[skip:, block - begin] <= most) + layout.starts[block]


def layout_of(points: NDArray[np.floating]) -> Layout:
    """Put points `(N, D)` into blocks. They are moved to their mean, so that float32 has the more digits for distances."""
    mean = points.mean(axis=0, dtype=np.float64)
    moved = (points - mean).astype(np.float32)
    blocks = blocks_of(moved)
    order = np.concatenate(blocks)
    moved = moved[order]
    halves = 0.5 * np.einsum("nd,nd->n", moved, moved, dtype=np.float64)
    ones = np.ones((len(moved), 1), dtype=np.float32)
    column = -halves.astype(np.float32)[:, None]
    starts = np.concatenate([[0], np.cumsum([len(block) for block in blocks])])
    spans = [slice(start, end) for start, end in pairwise(starts)]
    centres = np.stack([moved[span].mean(axis=0) for span in spans])
    radii = [
        float(np.sqrt(np.square((moved[span] - centre).astype(np.float64)).sum(axis=1).max()))
        for span, centre in zip(spans, centres, strict=True)
    ]
    # A sum of m products in float32 is off by at most m 2^-24 times the sum of their sizes, which is at most 2 R^2 for the
    # largest norm R; a few more for the rounding of what is multiplied. https://doi.org/10.1137/1.9780898718027, section 3.1
    error = (points.shape[1] + 8) * 2.0**-23 * 2 * float(halves.max(initial=0.0))
    return Layout(
        points,
        order,
        starts,
        np.concatenate([moved, ones, column], axis=1),
        np.concatenate([moved, column, ones], axis=1),
        centres,
        np.array(radii),
        error,
    )


def blocks_of(points: NDArray[np.float32]) -> list[Places]:
    """Places of at most BLOCK points each that are near each other: halved at the median of the widest coordinate."""
    blocks: list[Places] = []
    waiting = [np.arange(len(points))]
    while waiting:
        places = waiting.pop()
        if len(places) <= BLOCK:
            blocks.append(places)
            continue
        coordinate = int(points[places].var(axis=0).argmax())
        half = len(places) // 2
        split = np.argpartition(points[places, coordinate], half)
        waiting += [places[split[half:]], places[split[:half]]]
    return blocks
