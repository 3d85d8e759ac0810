"""Dense regions: DBSCAN against scikit-learn's label for label, its radius, the embeddings, and what is kept of each region."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from r1distill.errors import UserError
from r1distill.filter import dbscan as module
from r1distill.filter.clusters import (
    LEAST_EPS,
    choose_eps,
    cluster_columns,
    cluster_problems,
    cluster_texts,
    cluster_vectors,
    k_distances,
    kept_of_clusters,
)
from r1distill.filter.dbscan import dbscan
from r1distill.filter.embeddings import embed
from r1distill.filter_sections import Clusters

TOPICS = {
    "apples": "Tom buys {} red apples and gives his sister some of these apples at the market",
    "train": "A train leaves the northern station travelling {} kilometres an hour towards the coast",
    "triangle": "Find the area of the right triangle whose hypotenuse has length {} and one angle is known",
}


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that a few dozen points fill many, and edges that are joined a few at a time."""
    for name, value in (("BLOCK", 5), ("TILE", 3), ("CENTRES", 2), ("EDGES", 4), ("EXACT", 2)):
        monkeypatch.setattr(module, name, value)


def compare(points: Any, eps: float, min_samples: int) -> np.ndarray:
    expected = DBSCAN(eps=eps, min_samples=min_samples, algorithm="brute").fit(points)
    labels, core = dbscan(points, eps, min_samples)
    np.testing.assert_array_equal(labels, expected.labels_)
    np.testing.assert_array_equal(np.flatnonzero(core), expected.core_sample_indices_)
    return labels


# whole numbers: many equal points, distances of exactly eps, and border points between two clusters
grids = st.integers(1, 3).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 7), min_size=n, max_size=n), min_size=1, max_size=60)
)


@settings(deadline=None)
@given(grids, st.sampled_from([1.0, 2.0, 5.0]), st.integers(1, 6))
def test_labels_are_those_of_scikit_learn_on_grids(small_blocks_for_all, points, eps, min_samples):
    compare(np.array(points, dtype=np.float64), eps, min_samples)


@pytest.fixture(scope="module")
def small_blocks_for_all():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("BLOCK", 5), ("TILE", 3), ("CENTRES", 2), ("EDGES", 4), ("EXACT", 2)):
            patch.setattr(module, name, value)
        yield


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 200), st.integers(1, 20), st.floats(0.05, 1.5), st.integers(1, 8),
    st.sampled_from([np.float32, np.float64]), st.sampled_from([0.0, 100.0]),
)  # fmt: skip
def test_labels_are_those_of_scikit_learn_on_blobs(
    small_blocks_for_all, seed, n, dimensions, eps, min_samples, dtype, far
):
    """`far` from the origin float32 has few digits left for distances."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(5, dimensions))
    points = centres[draw.integers(0, 5, n)] + 0.2 * draw.normal(size=(n, dimensions)) + far
    compare(points.astype(dtype), eps * math.sqrt(dimensions), min_samples)


def test_labels_are_those_of_scikit_learn_in_blocks_of_their_usual_size():
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(40, 16))
    points = np.concatenate(
        [centres[draw.integers(0, 40, 2500)] + 0.05 * draw.normal(size=(2500, 16)), draw.normal(size=(1500, 16))]
    )
    labels = compare(draw.permutation(points).astype(np.float32), 0.3, 5)
    assert labels.max() >= 30
    assert (labels < 0).sum() > 1000


def test_a_border_point_between_two_clusters_is_of_the_first():
    # cores around 0 and around 4, and one point that both reach; the cluster that comes first has it
    left, right, between = [-0.5, 0.0, 0.5, 1.0], [3.0, 3.5, 4.0, 4.5], [2.0]
    for order in (left + between + right, right + between + left, between + right + left):
        labels = compare(np.array(order)[:, None], 1.0, 4)
        assert labels[order.index(2.0)] == 0


@pytest.mark.parametrize("points", [np.zeros((7, 3)), np.ones((1, 2)), np.full((40, 1), 1e6)])
def test_equal_points_are_one_cluster(points):
    compare(points, 1e-3, 1)
    compare(points, 1e-3, len(points) + 1)


def test_no_points_have_no_clusters_and_infinite_ones_are_refused():
    labels, core = dbscan(np.zeros((0, 4)), 0.5, 2)
    assert (labels.tolist(), core.tolist()) == ([], [])
    with pytest.raises(ValueError, match="not finite"):
        dbscan(np.array([[np.nan]]), 0.5, 2)
    with pytest.raises(UserError, match="not finite"):
        cluster_vectors(np.array([[np.inf]]), Clusters(), 0)


def test_the_order_of_the_points_changes_neither_cores_nor_their_clusters(small_blocks):
    draw = np.random.default_rng(5)
    points = draw.normal(size=(120, 2))
    labels, core = dbscan(points, 0.3, 4)
    order = draw.permutation(120)
    labels_again, core_again = dbscan(points[order], 0.3, 4)
    np.testing.assert_array_equal(core[order], core_again)
    together = {tuple(pair) for pair in zip(labels[order][core_again], labels_again[core_again], strict=True)}
    assert len(together) == labels.max() + 1 == labels_again.max() + 1


def test_k_distances_are_those_of_all_pairs():
    points = np.random.default_rng(2).normal(size=(90, 5))
    distances = np.sqrt(np.square(points[:, None] - points).sum(axis=2))
    np.testing.assert_allclose(k_distances(points, 4, seed=0), np.sort(distances, axis=1)[:, 3], rtol=1e-12)


def test_the_radius_is_between_company_and_solitude():
    draw = np.random.default_rng(4)
    centres = 10 * draw.normal(size=(6, 8))
    crowd = centres[draw.integers(0, 6, 540)] + 0.1 * draw.normal(size=(540, 8))
    points = np.concatenate([crowd, 30 * draw.normal(size=(60, 8))])
    eps = choose_eps(points, 5, seed=0)
    labels, _ = dbscan(points, eps, 5)
    assert labels.max() == 5
    assert (labels[:540] >= 0).mean() > 0.97
    assert (labels[540:] < 0).all()


def test_the_radius_of_copies_few_points_and_even_ones():
    assert choose_eps(np.zeros((50, 3)), 5, seed=0) == LEAST_EPS
    assert choose_eps(np.eye(3), 5, seed=0) == LEAST_EPS
    # every point of a ring of eight has its two neighbours at the same distance
    ring = np.stack([np.cos(np.arange(8) * math.pi / 4), np.sin(np.arange(8) * math.pi / 4)], axis=1)
    assert choose_eps(ring, 3, seed=0) == pytest.approx(2 * math.sin(math.pi / 8), abs=1e-6)
    # nearly all are copies of one: the radius of the copies is 0, and no neighbourhood has that
    copies = np.concatenate([np.zeros((95, 2)), np.random.default_rng(0).normal(size=(5, 2))])
    assert 0 < choose_eps(copies, 3, seed=0) < 3


def test_texts_of_one_template_are_one_region_and_others_are_none():
    texts = [TOPICS[name].format(number) for number in range(12) for name in TOPICS]
    texts += ["Prove that there are infinitely many primes", "Which planet is the largest", ""]
    found = cluster_texts(texts, Clusters(eps=0.6), seed=0)
    assert found.labels.tolist() == [0, 1, 2] * 12 + [-1] * 3
    again = cluster_texts(iter(texts), Clusters(eps=0.6), seed=0)
    np.testing.assert_array_equal(found.labels, again.labels)


def test_samples_of_one_problem_are_where_it_is_and_make_no_place_dense():
    texts = {f"{name}{number}": TOPICS[name].format(number) for number in range(6) for name in ("apples", "train")}
    texts["alone"] = "Prove that there are infinitely many primes"
    problem_ids = [*["alone"] * 20, "train3", "apples0", "train3"]
    found = cluster_problems(texts, problem_ids, Clusters(eps=0.6), seed=0)
    assert found.labels.tolist() == [-1] * 20 + [1, 0, 1]


def test_embeddings_are_unit_vectors_and_one_texts_beginning_decides():
    texts = ["one two three " + "x" * 50, "one two three " + "y" * 50, "", "four five six"]
    vectors = embed(texts, Clusters(max_characters=14, dimensions=2), seed=0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


@pytest.mark.parametrize("texts", [[], [""], ["", "?"], ["alone"], ["same words"] * 6])
def test_sets_that_hardly_say_anything_have_embeddings_and_clusters(texts):
    found = cluster_texts(texts, Clusters(), seed=0)
    assert found.labels.tolist() == ([0] * 6 if len(texts) == 6 else [-1] * len(texts))


def test_a_model_of_embeddings_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"sentence_transformers|filter.clusters.model"):
        embed(["text"], Clusters(model=str(tmp_path / "nothing")), seed=0)


def test_a_model_of_sentence_transformers_gives_the_vectors(tmp_path: Path, request: pytest.FixtureRequest):
    pytest.importorskip("sentence_transformers", reason="the extra embeddings is not installed")
    model = str(request.getfixturevalue("tiny_student"))  # without a pooling of its own, the mean of the last layer
    vectors = embed(["two sums", "two sums", "else"], Clusters(model=model), seed=0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    assert np.linalg.norm(vectors[0] - vectors[2]) > 1e-3


def tags(cluster: list[int | None], quality: list[float | None], n_tokens: list[int]) -> pa.Table:
    n = len(cluster)
    return pa.table(
        {
            "problem_id": pa.array(
                [f"p{index}" for index in range(n)], pa.string()
            ).dictionary_encode(),  # as read_tags has it
            "sample": [0] * n,
            "cluster": pa.array(cluster, pa.int64()),
            "quality": pa.array(quality, pa.float64()),
            "n_tokens": n_tokens,
        }
    )


def test_the_best_of_each_region_is_kept_and_all_that_is_in_none():
    rows = tags([0, 0, 1, 1, -1, -1, None], [0.2, 0.9, None, 0.1, 0.1, None, 0.2], [1, 9, 1, 9, 5, 5, 5])
    assert kept_of_clusters(rows, Clusters()).tolist() == [False, True, False, True, True, True, True]
    assert kept_of_clusters(rows, Clusters(keep="shortest")).tolist() == [True, False, True, False, True, True, True]
    assert kept_of_clusters(rows, Clusters(per_cluster=2)).all()
    assert kept_of_clusters(rows, Clusters(keep="all")).all()
    equal = tags([0, 0, 0], [0.5, 0.5, math.nan], [7, 3, 1])
    assert kept_of_clusters(equal, Clusters()).tolist() == [False, True, False]
    assert kept_of_clusters(rows.slice(0, 0), Clusters()).tolist() == []


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 3), st.sampled_from([None, 0.1, 0.5]), st.integers(1, 3)), max_size=25),
    st.integers(1, 3), st.randoms(),
)  # fmt: skip
def test_what_is_kept_does_not_depend_on_the_order_of_the_rows(rows, per_cluster, draw):
    columns = ([row[index] for row in rows] for index in range(3))
    whole = tags(*columns)  # type: ignore[arg-type]
    order = list(range(len(rows)))
    draw.shuffle(order)
    found = kept_of_clusters(whole, Clusters(per_cluster=per_cluster))
    again = kept_of_clusters(whole.take(pa.array(order, pa.int64())), Clusters(per_cluster=per_cluster))
    np.testing.assert_array_equal(found[order], again)
    for number in {row[0] for row in rows if row[0] >= 0}:
        members = [index for index, row in enumerate(rows) if row[0] == number]
        assert found[members].sum() == min(per_cluster, len(members))


def test_the_size_of_a_region_is_on_each_of_its_traces():
    found = cluster_columns(np.array([0, -1, 1, 0, -1]))
    assert found["cluster_size"].tolist() == [2, 1, 1, 2, 1]
    assert cluster_columns(np.array([-1, -1]))["cluster_size"].tolist() == [1, 1]
    assert cluster_columns(np.array([], dtype=np.int64))["cluster_size"].tolist() == []
