"""A text in 64 bytes, by which two of them can be told to say the same in the same words."""

from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] - a compiled module without stubs

SKETCH_BYTES = 64
SHINGLE_WORDS = 3
SEED = 1


def sketch_of(text: str) -> bytes:
    """SKETCH_BYTES bytes. Two texts agree in about that share of them that is the Jaccard similarity of their 3-word shingles.

    The lowest byte of each of 64 minima (b-bit minwise hashing with b = 8, Li and König 2010, https://arxiv.org/abs/0910.3349):
    1 in 256 agree by chance, and the standard error is 0.06 at most. A text of fewer words is one shingle.
    """
    words = text.split()
    shingles = {" ".join(words[n : n + SHINGLE_WORDS]) for n in range(max(1, len(words) - SHINGLE_WORDS + 1))}
    sketch = RMinHash(num_perm=SKETCH_BYTES, seed=SEED)
    sketch.update(sorted(shingles))
    return bytes(minimum & 0xFF for minimum in sketch.digest())
