"""Embeddings of texts as unit vectors: of a sentence-transformers model, or TF-IDF and a truncated decomposition of it."""

import importlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1distill.errors import UserError, require_packages
from r1distill.filter_sections import Clusters

TEXTS = 1024  # that are embedded together
TERMS = 1 << 18  # words are hashed to so many columns: no vocabulary has to be held, and a text is always the same row
FITTED = 50_000  # texts of which the decomposition is made, drawn at random; the others are projected on it


def embed(texts: Iterable[str], settings: Clusters, seed: int) -> NDArray[np.float32]:
    """Unit vectors `(N, D)` of texts, of which only the embedded beginning and TEXTS whole ones are in memory at once.

    A text without a word is a vector of zeros. Raises UserError where the package or the model is not to be had.
    """
    beginnings = (text[: settings.max_characters] for text in texts)
    return model_vectors(beginnings, settings.model) if settings.model else tfidf_vectors(beginnings, settings, seed)


def tfidf_vectors(texts: Iterable[str], settings: Clusters, seed: int) -> NDArray[np.float32]:
    """Latent semantic analysis (https://scikit-learn.org/stable/modules/decomposition.html#about-truncated-svd-and-latent-semantic-analysis-lsa).

    A word counts (1 + ln tf) (1 + ln((1 + N) / (1 + df))), rows are of unit length, and the decomposition keeps
    `dimensions` or what there is. Memory: 8 bytes for each different word of each text, and N x D floats.
    """
    require_packages("[filter.clusters]", "sklearn")
    extraction: Any = importlib.import_module("sklearn.feature_extraction.text")
    decomposition: Any = importlib.import_module("sklearn.decomposition")
    sparse: Any = importlib.import_module("scipy.sparse")
    hashing = extraction.HashingVectorizer(n_features=TERMS, alternate_sign=False, norm=None, dtype=np.float32)
    rows = [hashing.transform(batch) for batch in batched(texts, TEXTS)]
    if not rows:
        return np.zeros((0, settings.dimensions), dtype=np.float32)
    counts = sparse.vstack(rows, format="csr")
    del rows
    counts = counts[:, np.flatnonzero(counts.getnnz(axis=0))]
    if not counts.shape[1]:  # no text has a word
        return np.zeros((counts.shape[0], settings.dimensions), dtype=np.float32)
    weighted = extraction.TfidfTransformer(sublinear_tf=True).fit(counts).transform(counts, copy=False)
    del counts
    if weighted.shape[1] == 1:  # the same word in all of them leaves nothing to decompose
        return unit(weighted.toarray())
    n = weighted.shape[0]
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:FITTED])
    dimensions = min(settings.dimensions, *weighted.shape)
    with np.errstate(invalid="ignore"):  # texts that are all the same have no variance to explain
        svd = decomposition.TruncatedSVD(dimensions, random_state=seed).fit(weighted[chosen])
    vectors = np.empty((n, dimensions), dtype=np.float32)
    for start in range(0, n, FITTED):
        vectors[start : start + FITTED] = unit(svd.transform(weighted[start : start + FITTED]))
    return vectors


def model_vectors(texts: Iterable[str], model: str) -> NDArray[np.float32]:
    """The vectors of a sentence-transformers model (https://www.sbert.net)."""
    require_packages("filter.clusters.model", "sentence_transformers")
    package: Any = importlib.import_module("sentence_transformers")
    try:
        encoder = package.SentenceTransformer(model)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"filter.clusters.model = {model}: cannot be opened: {reason}; give the folder or Hub id of a "
            "sentence-transformers model, or take the key out for TF-IDF"
        ) from None
    parts = [
        unit(encoder.encode(batch, convert_to_numpy=True, show_progress_bar=False)) for batch in batched(texts, TEXTS)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # below this a length is what rounding leaves of none
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-6).astype(np.float32)


def batched(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, size)):
        yield batch
