"""The sections of the recipe below [filter]: the data selection of published recipes, each of them off unless it is there.

The docstring of a field is its documentation in README.md.
"""

from datetime import date
from typing import Literal

from pydantic import Field, field_validator, model_validator

from r1distill.section import Section

Term = Literal["freshness", "completeness", "consistency", "diversity"]
# the weights of the terms of a quality score, as the articles give them; each set sums to 1
WEIGHT_SETS: dict[str, dict[Term, float]] = {
    "three_terms": {"freshness": 0.4, "diversity": 0.35, "consistency": 0.25},
    "four_terms": {"freshness": 0.3, "completeness": 0.25, "consistency": 0.25, "diversity": 0.2},
}


class EntropyFilter(Section):
    """Traces of which the teacher was too unsure, or too sure: by their mean token entropy, decided on its bounds."""

    mode: Literal["absolute", "two_sided", "percentile", "z_score"] = "absolute"
    """`absolute`: an upper limit; `two_sided`: a lower one as well; the others compare a trace with the rest of the run."""
    scope: Literal["sequence", "thinking", "answer"] = "sequence"
    """Which tokens: all, those up to `</think>`, or those behind it."""
    max_nats: float = Field(default=0.85, gt=0)
    """`absolute` and `two_sided`: drop what is surely above."""
    min_nats: float = Field(default=0.0, ge=0)
    """`two_sided`: drop what is surely below."""
    max_percentile: float = Field(default=95.0, gt=0, le=100)
    """`percentile`: drop what is surely above that percentile; 100 drops nothing."""
    min_percentile: float = Field(default=0.0, ge=0, lt=100)
    """`percentile`: drop what is surely below that percentile; 0 drops nothing."""
    max_z: float = Field(default=3.0, gt=0)
    """`z_score`: drop what is more standard deviations above the mean."""
    min_z: float | None = Field(default=None, lt=0)
    """`z_score`: drop what is below so many standard deviations (a negative number); absent drops nothing."""
    within: Literal["run", "bin"] = "bin"
    """`percentile` and `z_score`: compared with the whole run, or with traces of one source and about one length."""
    smallest_bin: int = Field(default=30, ge=2)
    """Traces of a bin with fewer measured ones are compared with the whole run."""
    undecided: Literal["keep", "lower_bound", "rescore"] = "keep"
    """Where the limit lies between the bounds: keep it, take the lower bound for the truth, or score it again exactly."""

    @model_validator(mode="after")
    def every_key_is_read(self) -> "EntropyFilter":
        read = {
            "absolute": {"max_nats", "undecided"},
            "two_sided": {"max_nats", "min_nats", "undecided"},
            "percentile": {"max_percentile", "min_percentile", "within", "smallest_bin", "undecided"},
            "z_score": {"max_z", "min_z", "within", "smallest_bin"},
        }[self.mode] | {"mode", "scope"}
        # by value, since recipe.json names every key
        for name, field in type(self).model_fields.items():
            if name in read or getattr(self, name) == field.default:
                continue
            raise ValueError(f'{name} = {getattr(self, name)} means nothing where mode = "{self.mode}"; remove it')
        return self

    @model_validator(mode="after")
    def limits_leave_room(self) -> "EntropyFilter":
        if self.mode == "two_sided" and not 0 < self.min_nats < self.max_nats:
            raise ValueError(
                f'mode = "two_sided" with min_nats = {self.min_nats} and max_nats = {self.max_nats}: above 0, and below '
                "max_nats"
            )
        if self.min_percentile >= self.max_percentile:
            raise ValueError(f"min_percentile = {self.min_percentile} is not below max_percentile; lower it")
        return self


class Quality(Section):
    """A score in [0, 1] for each trace: a weighted mean of terms. A term that is not known of a trace is left out of its mean."""

    weights: Literal["three_terms", "four_terms"] | dict[Term, float] = "four_terms"
    """`three_terms`: freshness 0.4, diversity 0.35, consistency 0.25; `four_terms`: freshness 0.3, completeness 0.25,
    consistency 0.25, diversity 0.2; or weights of your own, of which the shares count: `{ consistency = 2, diversity = 1 }`."""
    reference_date: str | None = None
    """The day from which the age of a problem is counted, `"2025-01-31"`; absent is the newest date among the problems."""
    tau_days: float = Field(default=365.0, gt=0)
    """Freshness is exp(-age / tau)."""
    category: Literal["source", "kind", "problem_language", "cluster"] = "source"
    """The column of tags.parquet whose rare values are worth more to diversity."""

    @field_validator("reference_date")
    @classmethod
    def is_a_day(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                date.fromisoformat(value)
            except ValueError:
                raise ValueError(f'reference_date = "{value}": a day is written "2025-01-31"') from None
        return value

    @model_validator(mode="after")
    def some_term_has_weight(self) -> "Quality":
        weights = self.shares
        if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ValueError(f"weights = {weights}: none below 0, and at least one above")
        return self

    @property
    def shares(self) -> dict[Term, float]:
        """The weight of each term."""
        return WEIGHT_SETS[self.weights] if isinstance(self.weights, str) else self.weights


class Clusters(Section):
    """Dense regions of the set, found by DBSCAN over embeddings, and what is kept of each."""

    text: Literal["problem", "thinking", "answer"] = "problem"
    """What is embedded. Problems are embedded once each, and all traces of one are where it is."""
    max_characters: int = Field(default=4000, ge=1)
    """The beginning of a text that is embedded."""
    model: str | None = Field(default=None, min_length=1)
    """A sentence-transformers model, Hub id or folder; absent is TF-IDF and a truncated singular value decomposition."""
    dimensions: int = Field(default=64, ge=2, le=1024)
    """Of the decomposition; a model has its own."""
    eps: float | None = Field(default=None, gt=0)
    """Radius of a neighbourhood of unit vectors, sqrt(2 - 2 cosine); 0.3 is a cosine of 0.955. Absent: by the k-distances."""
    min_samples: int = Field(default=5, ge=1)
    """Texts in the neighbourhood of one, itself included, that make it the core of a dense region."""
    keep: Literal["all", "quality", "shortest"] = "quality"
    """Of each dense region keep everything, or the `per_cluster` best or shortest; what is in none is always kept."""
    per_cluster: int = Field(default=1, ge=1)
    """Traces that are kept of each dense region."""

    @model_validator(mode="after")
    def a_model_has_its_own_dimensions(self) -> "Clusters":
        if self.model and self.dimensions != type(self).model_fields["dimensions"].default:
            raise ValueError(f"dimensions = {self.dimensions} means nothing where model is given; remove it")
        return self


class Pools(Section):
    """Pools of kept traces for [train.curriculum], the column `pools`: diverse, quality, hard, and rest for what is in none."""

    diverse: Literal["cluster", "category"] = "cluster"
    """`cluster`: the best trace of each dense region, and of each problem outside of them; `category`: those of the categories
    (`quality.category`) that are no larger than an even share."""
    min_quality_percentile: float = Field(default=50.0, ge=0, lt=100)
    """The pool `quality`: a quality score of at least that percentile."""
    max_pass_rate: float = Field(default=0.5, ge=0, le=1)
    """The pool `hard`: traces of problems that are solved at most so often,"""
    min_length_percentile: float = Field(default=90.0, ge=0, le=100)
    """or traces that are at least as long as that percentile, in tokens."""
