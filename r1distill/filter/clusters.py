"""Dense regions of a set of texts, and the best traces of each.

A set that is sampled from templates, or crawled, is dense in some places and sparse in others; of what is said many times
over, the best is enough. Texts are embedded (embeddings.py), dense regions are clusters of DBSCAN (dbscan.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from r1distill.errors import UserError, require_packages
from r1distill.filter.columns import numbers, words
from r1distill.filter.dbscan import dbscan
from r1distill.filter.embeddings import embed
from r1distill.filter_sections import Clusters

ASKED = 1000  # points whose k-distance is taken, drawn at random
QUERIES = 64  # of them at once
LEAST_EPS = 1e-6  # what is nearer is the same vector, but for float32


@dataclass(frozen=True, eq=False)
class Clustering:
    """`labels (N,)`: the dense region of each text, from 0 on, -1 for none. `eps`: the radius that was taken."""

    labels: NDArray[np.int64]
    eps: float


def cluster_texts(texts: Iterable[str], settings: Clusters, seed: int) -> Clustering:
    """The dense regions of texts. Raises UserError where scikit-learn, or the model, is not to be had."""
    require_packages("[filter.clusters]", "sklearn")
    return cluster_vectors(embed(texts, settings, seed), settings, seed)


def cluster_problems(texts: Mapping[str, str], problem_ids: Sequence[str], settings: Clusters, seed: int) -> Clustering:
    """The dense region of the problem of each trace `(N,)`: many samples of one problem make no place dense.

    `texts`: each problem's text by its id; `problem_ids (N,)` are those of the traces.
    """
    found = cluster_texts(texts.values(), settings, seed)
    label = dict(zip(texts, found.labels.tolist(), strict=True))
    return Clustering(np.array([label[problem_id] for problem_id in problem_ids], dtype=np.int64), found.eps)


def cluster_vectors(vectors: NDArray[np.floating], settings: Clusters, seed: int) -> Clustering:
    """The dense regions of vectors `(N, D)`. Raises UserError for vectors that are not finite."""
    if not np.isfinite(vectors).all():
        raise UserError(f"filter.clusters.model = {settings.model}: it gives vectors that are not finite; take another")
    eps = settings.eps or choose_eps(vectors, settings.min_samples, seed)
    return Clustering(dbscan(vectors, eps, settings.min_samples)[0], eps)


def choose_eps(vectors: NDArray[np.floating], min_samples: int, seed: int) -> float:
    """The radius at the knee of the sorted k-distances, k = min_samples: section 4.2 of the paper of DBSCAN (dbscan.py).

    The k-distance of a point is that to its k-th nearest, itself the first: the least radius at which it is a core. Those
    of ASKED random points, to all points, are sorted; the knee is where the curve is farthest below the line from its
    first to its last (as Kneedle has it, Satopää et al. 2011): up to there points have company, beyond they are alone.
    Where all are equal that is the radius; where it is 0, as among copies, the smallest above.
    """
    if len(vectors) <= min_samples:
        return LEAST_EPS  # too few to tell dense from sparse: only copies are together
    distances = np.sort(k_distances(vectors, min_samples, seed))
    span = distances[-1] - distances[0]
    heights = (distances - distances[0]) / span if span > 0 else np.zeros(len(distances))
    knee = distances[int(np.argmax(np.linspace(0, 1, len(distances)) - heights))]
    above = distances[distances > LEAST_EPS]
    return float(max(knee, LEAST_EPS) if knee > LEAST_EPS or not len(above) else above[0])


def k_distances(vectors: NDArray[np.floating], k: int, seed: int) -> NDArray[np.float64]:
    """The distance of at most ASKED random points of `(N, D)` to their k-th nearest, themselves counted."""
    asked = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:ASKED])
    points = vectors.astype(np.float32, copy=False)
    squares = np.einsum("nd,nd->n", points, points)
    distances = []
    for start in range(0, len(asked), QUERIES):
        places = asked[start : start + QUERIES]
        rough = squares - 2 * (points[places] @ points.T)
        # the k nearest by float32, measured again: near ones lose their digits in the difference of squares
        nearest = np.argpartition(rough, k - 1, axis=1)[:, :k]
        apart = vectors[nearest].astype(np.float64) - vectors[places][:, None].astype(np.float64)
        distances.append(np.sqrt(np.square(apart).sum(axis=2)).max(axis=1))
    return np.concatenate(distances)


def cluster_columns(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """`cluster` and `cluster_size`, the traces that have the same one, from the label of each trace `(N,)`; 1 outside of all."""
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    return {"cluster": labels, "cluster_size": np.where(labels < 0, 1, sizes[np.maximum(labels, 0)])}


def kept_of_clusters(tags: pa.Table, settings: Clusters) -> NDArray[np.bool_]:
    """Which traces `(N,)` are among the `per_cluster` best of their dense region; what is in none, or unknown, is.

    `tags` has `cluster`, `quality`, `n_tokens`, `problem_id` and `sample`, of the traces that the rules before have left:
    the best of all may be one that they dropped.
    """
    cluster = known_clusters(tags)
    if settings.keep == "all":
        return np.ones(len(cluster), dtype=bool)
    return (cluster < 0) | (places_in_groups(tags, cluster, settings.keep) < settings.per_cluster)


def known_clusters(tags: pa.Table) -> NDArray[np.int64]:
    """The column `cluster` `(N,)`, -1 for null."""
    return np.nan_to_num(numbers(tags, "cluster"), nan=-1.0).astype(np.int64)


def places_in_groups(tags: pa.Table, groups: NDArray[np.int64], by: str = "quality") -> NDArray[np.int64]:
    """The place of each trace in its group `(N,)`, 0 for the best: by quality (the highest) or the shortest.

    What is not known is last. Ties go to the shorter one, then by name, so that the order of the rows changes nothing.
    """
    first = [("quality", "descending")] if by == "quality" else []
    keys = [("group", "ascending"), *first, *((name, "ascending") for name in ("n_tokens", "problem_id", "sample"))]
    quality = pa.array(numbers(tags, "quality"), from_pandas=True)  # NaN is unknown too
    columns = {"n_tokens": tags["n_tokens"], "problem_id": words(tags, "problem_id").places, "sample": tags["sample"]}
    table = pa.table({"row": np.arange(len(groups)), "group": groups, "quality": quality, **columns})
    order = table.sort_by(keys)["row"].to_numpy()
    # the first place of each group is where its number begins
    of_group = groups[order]
    starts = np.searchsorted(of_group, of_group, side="left")
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order)) - starts
    return places
