"""The teacher cache: sparse distributions of traces on disk, memory-mapped, behind a manifest.

    manifest.json    who gave the distributions, over which vocabulary, how, and the list of shards
    progress.json    the same of a cache that is not finished and can be continued
    00000.arrow      Arrow IPC, a row a trace: its key, its tokens, their rows' lengths, ids and logprobs

The manifest is written last and taken away first: a folder without one is not finished.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from r1distill.errors import UserError
from r1distill.generate.distributions import LEAST, MASS, MOST, SparseRows
from r1distill.records import Trace
from r1distill.store import read_json, replacing, write_json

VERSION = 3
SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("token_ids", pa.large_list(pa.int32())),
        ("lengths", pa.large_list(pa.uint16())),
        ("ids", pa.large_list(pa.int32())),
        ("logprobs", pa.large_list(pa.float32())),
        ("power_sums", pa.large_list(pa.float32())),
        ("entropies", pa.large_list(pa.float32())),
    ]
)
BYTES_A_BATCH = 16 << 20
BYTES_A_SHARD = 1 << 30
NO_ROW = -1
MOST_TAIL = -1e-7  # the log of a mass outside of all but 1; float32 tells no more
SEAL_EVERY_S = 60.0  # what a killed process loses at most of a cache that can be continued
MANIFEST, PROGRESS = "manifest.json", "progress.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Teacher:
    """Whose distributions they are. `logprobs_mode` is vLLM's word, or "unknown" where a server did not say."""

    source: str  # what made them: "generation", "vllm" or "transformers"
    model: str
    revision: str | None
    vocabulary_sha256: str
    logprobs_mode: str
    k: int  # entries of a row at most
    temperatures: tuple[float, ...] = ()  # those at which the mass outside the rows is known; "transformers" only
    template_sha256: str | None = None  # of the text of the chat template; None where a server has its own
    prompt_sha256: str | None = None  # of the prompt file
    prefill: str | None = None
    dtype: str | None = None  # of the pass that scored; None where the engine of generation decided
    vocabulary_rows: int | None = None  # over how many logits it is a distribution; None for all that the head has


def vocabulary_sha256(vocabulary: dict[str, int]) -> str:
    """Of a tokenizer's map from token to id (`get_vocab()`): two models share distributions only where it is equal."""
    return hashlib.sha256(json.dumps(sorted(vocabulary.items(), key=lambda item: item[1])).encode()).hexdigest()


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """In which of the entries of `wanted` a manifest differs, in words that say both; "" where it fits."""
    pairs = {name: (found.get(name), value) for name, value in json.loads(json.dumps(wanted)).items()}
    return ", ".join(
        f"{name} {json.dumps(theirs)} (the recipe: {json.dumps(ours)})"
        for name, (theirs, ours) in pairs.items()
        if theirs != ours
    )


class CacheWriter:
    """Writes a cache into `folder`. A context manager; without an exception it ends with the manifest.

    It replaces what is there. With `resume` it adds to it, finished or not: `seal_if_due` closes a shard every minute and
    notes it in progress.json, and what is noted survives any end. `made_for` is noted beside each new shard. Raises
    UserError on entering where what is there is of another teacher.
    """

    def __init__(self, folder: Path, teacher: Teacher, *, resume: bool = False, made_for: str | None = None) -> None:
        self.folder, self.teacher, self.resume, self.made_for = folder, teacher, resume, made_for
        self.shards: list[dict[str, Any]] = []
        self.batch: list[tuple[Trace, SparseRows, NDArray[np.float32], NDArray[np.float32]]] = []
        self.batch_bytes = 0
        self.batch_mass = 0.0
        self.shard = ExitStack()
        self.file: pa.ipc.RecordBatchFileWriter | None = None
        self.sealed_at = time.monotonic()
        self.before: TeacherCache | None = None  # what was there, where it is continued

    def __enter__(self) -> "CacheWriter":
        for torn in (*self.folder.glob(".*.arrow.*"), *self.folder.glob(".*.json.*")):  # of a process that was killed
            torn.unlink()
        manifest, progress = self.folder / MANIFEST, self.folder / PROGRESS
        if self.resume:
            for path in (manifest, progress):
                if path.is_file():
                    self.before = TeacherCache(self.folder, path.name)
                    self.shards = self.before.manifest["shards"]
                    break
            if self.before and (other := differences(self.before.manifest, dataclasses.asdict(self.teacher))):
                raise UserError(
                    f"{self.folder} holds distributions that do not fit the recipe: {other}; correct the recipe, or move "
                    "the folder away"
                )
            if manifest.is_file():
                manifest.replace(progress)
        else:
            manifest.unlink(missing_ok=True)
            progress.unlink(missing_ok=True)
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is not None:
            self.shard.__exit__(kind, value, traceback)
            return
        self.seal()
        names = {shard["name"] for shard in self.shards}
        for path in self.folder.glob("*.arrow"):
            if path.name not in names:
                path.unlink()
        write_json(self.folder / MANIFEST, self.manifest())
        (self.folder / PROGRESS).unlink(missing_ok=True)

    def manifest(self) -> dict[str, Any]:
        total = {
            key: sum(shard[key] for shard in self.shards) for key in ("traces", "tokens", "entries", "bytes", "mass")
        }
        tokens = max(total["tokens"], 1)
        return {
            "version": VERSION,
            **dataclasses.asdict(self.teacher),
            "mass": MASS,
            "least": LEAST,
            "most": MOST,
            **{key: total[key] for key in ("traces", "tokens", "entries", "bytes")},
            "mean_entries_a_token": total["entries"] / tokens,
            "mean_mass_a_token": total["mass"] / tokens,
            "shards": self.shards,
        }

    def has(self, trace: Trace) -> bool:
        """Whether the distributions at these very tokens were there when this began."""
        return self.before is not None and self.before.rows(trace) is not None

    def add(
        self,
        trace: Trace,
        rows: SparseRows,
        power_sums: NDArray[np.floating] | None = None,
        entropies: NDArray[np.floating] | None = None,
    ) -> None:
        """`rows` are those of the tokens in `trace.token_ids` `(T,)`, in order.

        From whole distributions p of each token also log sum p^(1/temperature) for the teacher's `temperatures`, `(T, G)`,
        and the entropy `(T,)` in nats. Raises ValueError where they are not as many.
        """
        n, grid = len(trace.token_ids or []), len(self.teacher.temperatures)
        power_sums = np.zeros((n, 0)) if power_sums is None else power_sums
        if len(rows) != n or power_sums.shape != (n, grid) or (entropies is not None and entropies.shape != (n,)):
            raise ValueError(f"{len(rows)} distributions of {n} tokens, power sums {power_sums.shape} of {(n, grid)}")
        wide = power_sums.astype(np.float32).reshape(-1)
        entropies = np.zeros(0, np.float32) if entropies is None else entropies.astype(np.float32)
        self.batch.append((trace, rows, wide, entropies))
        parts = (rows.lengths, rows.ids, rows.logprobs, wide, entropies)
        self.batch_bytes += 4 * n + sum(part.nbytes for part in parts)
        self.batch_mass += float(np.exp(rows.logprobs.astype(np.float64)).sum())
        if self.batch_bytes > BYTES_A_BATCH:
            self.write_batch()
            if not self.resume:
                self.seal_if_due()

    def write_batch(self) -> None:
        if not self.batch:
            return
        if self.file is None:
            name = f"{len(self.shards):05}.arrow"
            path = self.shard.enter_context(replacing(self.folder / name))
            self.file = self.shard.enter_context(pa.ipc.new_file(path, SCHEMA))
            self.shards.append({"name": name, "traces": 0, "tokens": 0, "entries": 0, "bytes": 0, "mass": 0.0})
            if self.made_for is not None:
                self.shards[-1]["made_for"] = self.made_for
        traces, rows, power_sums, entropies = zip(*self.batch, strict=True)
        columns = [
            pa.array([trace.problem_id for trace in traces], pa.string()),
            pa.array([trace.sample for trace in traces], pa.int32()),
            lists([np.asarray(trace.token_ids, dtype=np.int32) for trace in traces]),
            *(lists([getattr(each, name) for each in rows]) for name in ("lengths", "ids", "logprobs")),
            lists(power_sums),
            lists(entropies),
        ]
        self.file.write_batch(pa.record_batch(columns, schema=SCHEMA))
        shard = self.shards[-1]
        shard["traces"] += len(rows)
        shard["tokens"] += sum(map(len, rows))
        shard["entries"] += sum(len(each.ids) for each in rows)
        shard["bytes"] += self.batch_bytes
        shard["mass"] += self.batch_mass
        self.batch, self.batch_bytes, self.batch_mass = [], 0, 0.0

    def seal_if_due(self) -> None:
        """Where it is to be continued this is asked for by who adds, between what was made together."""
        is_full = self.file is not None and self.shards[-1]["bytes"] > BYTES_A_SHARD
        if is_full or (self.resume and time.monotonic() - self.sealed_at > SEAL_EVERY_S):
            self.seal()

    def seal(self) -> None:
        """End the shard, so that it is there whatever comes next."""
        self.write_batch()
        if self.file is not None:
            self.shard.close()
            self.file = None
            if self.resume:
                write_json(self.folder / PROGRESS, self.manifest())
        self.sealed_at = time.monotonic()


def lists(arrays: Iterable[np.ndarray]) -> pa.LargeListArray:
    arrays = list(arrays)
    ends = np.concatenate([[0], np.cumsum([len(array) for array in arrays])])
    return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(np.concatenate(arrays)))


class Gathered(NamedTuple):
    """Rows `(N, K)` of N tokens, -1 and -inf where one is shorter or there is none.

    `tails (N, G)`: the log of the mass outside the row at each of the cache's temperatures, None where it has none.
    """

    ids: NDArray[np.int64]
    logprobs: NDArray[np.float32]
    tails: NDArray[np.float32] | None


class TeacherCache:
    """Reads a cache; nothing of it is in memory but the keys. Raises UserError where it is not whole or not readable.

    `listing` is PROGRESS for what there is of one that is not finished. Of a trace that was added twice the last counts.
    """

    def __init__(self, folder: Path, listing: str = MANIFEST) -> None:
        path = folder / listing
        if not path.is_file():
            raise UserError(f"{folder}: no teacher cache, or one that was not finished; make it again")
        self.manifest = read_json(path)
        if self.manifest["version"] != VERSION:
            raise UserError(
                f"{path}: version {self.manifest['version']}, this r1distill reads {VERSION}; make the cache again"
            )
        self.temperatures: tuple[float, ...] = tuple(self.manifest["temperatures"])
        self.places: dict[tuple[str, int], int] = {}  # the number of a trace
        self.traces: list[tuple[pa.RecordBatch, int]] = []
        starts = [0]
        for shard in self.manifest["shards"]:
            file = folder / shard["name"]
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(file)))
            except (OSError, pa.ArrowInvalid) as error:
                raise UserError(f"{file}: cannot be read: {error}; make the cache again") from None
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                keys = zip(batch["problem_id"].to_pylist(), batch["sample"].to_pylist(), strict=True)
                lengths = np.diff(batch["token_ids"].offsets.to_numpy())
                for row, (key, length) in enumerate(zip(keys, lengths.tolist(), strict=True)):
                    self.places[key] = len(self.traces)
                    self.traces.append((batch, row))
                    starts.append(starts[-1] + length)
        self.starts = np.array(starts)  # of each trace, among the rows of all

    def __len__(self) -> int:
        return len(self.places)

    def tokens_of(self, problem_id: str, sample: int) -> tuple[NDArray[np.int32], int] | None:
        """The tokens that a trace was sampled as, and the number of the first one's row; None where it is not here."""
        number = self.places.get((problem_id, sample))
        return None if number is None else (array(*self.traces[number], "token_ids"), int(self.starts[number]))

    def rows(self, trace: Trace) -> SparseRows | None:
        """The distributions at the trace's tokens, without copying them; None where these tokens are not in the cache."""
        number = self.places.get((trace.problem_id, trace.sample))
        if number is None or not np.array_equal(array(*self.traces[number], "token_ids"), trace.token_ids or []):
            return None
        return self.rows_of(number)

    def rows_of(self, number: int) -> SparseRows:
        return SparseRows(*(array(*self.traces[number], name) for name in ("lengths", "ids", "logprobs")))

    def gather(self, rows: NDArray[np.int64]) -> Gathered:
        """The rows of these numbers `(N,)`; NO_ROW is an empty one."""
        wanted = np.flatnonzero(rows != NO_ROW)
        trace_of = np.searchsorted(self.starts, rows[wanted], side="right") - 1
        grid = len(self.temperatures)
        power_sums = np.zeros((len(rows), grid), dtype=np.float32)
        parts = []
        for number in np.unique(trace_of):
            places = wanted[trace_of == number]
            whole = self.rows_of(int(number))
            ends = np.cumsum(whole.lengths, dtype=np.int64)
            tokens = rows[places] - self.starts[number]
            parts.append((places, whole, whole.lengths[tokens].astype(np.int64), ends[tokens]))
            if grid:
                power_sums[places] = array(*self.traces[int(number)], "power_sums").reshape(-1, grid)[tokens]
        longest = max((int(lengths.max(initial=0)) for _, _, lengths, _ in parts), default=0)
        ids = np.full((len(rows), max(longest, 1)), -1, dtype=np.int64)
        logprobs = np.full(ids.shape, -np.inf, dtype=np.float32)
        for places, whole, lengths, ends in parts:
            row = np.repeat(places, lengths)
            column = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            entry = np.repeat(ends - lengths, lengths) + column
            ids[row, column], logprobs[row, column] = whole.ids[entry], whole.logprobs[entry]
        return Gathered(ids, logprobs, self.tails(logprobs, power_sums) if grid else None)

    def tails(self, logprobs: NDArray[np.float32], power_sums: NDArray[np.float32]) -> NDArray[np.float32]:
        """log(1 - sum over the row of p^(1/T) / sum over all of p^(1/T)) `(N, G)`."""
        temperatures = np.array(self.temperatures)
        inside = np.exp(logprobs[:, :, None].astype(np.float64) / temperatures - power_sums[:, None, :]).sum(axis=1)
        with np.errstate(divide="ignore"):
            return np.minimum(np.log(np.maximum(1.0 - inside, 0.0)), MOST_TAIL).astype(np.float32)


def array(batch: pa.RecordBatch, row: int, name: str) -> np.ndarray:
    return batch[name][row].values.to_numpy()
