"""Who measures the pieces of a run: this process, several on this machine, or a Ray cluster. The results are the same."""

import importlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from functools import partial

import pyarrow as pa

from r1distill.errors import require_packages
from r1distill.filter.units import Unit

AHEAD = 2  # pieces a process that wait for it: so many tables are in memory at most, beside those at work

Measure = Callable[[Unit], pa.Table]


def measured(measure: Measure, units: Sequence[Unit], *, workers: int, ray: str | None = None) -> Iterator[pa.Table]:
    """`measure` of every piece, in the order of the pieces. It has to be a function that a process can import.

    `ray` is the address of a cluster (HOST:PORT, or "auto"), None for processes of this machine. Raises
    UserError where no cluster answers.
    """
    if ray is not None:
        return by_ray(measure, units, workers, ray)
    return map(measure, units) if min(workers, len(units)) <= 1 else by_processes(measure, units, workers)


def by_processes(measure: Measure, units: Sequence[Unit], workers: int) -> Iterator[pa.Table]:
    # not fork: there may be threads
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(min(workers, len(units)), mp_context=context) as processes:
        waiting: deque[Future[pa.Table]] = deque()
        try:
            for unit in units:
                waiting.append(processes.submit(measure, unit))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            processes.shutdown(cancel_futures=True)


def by_ray(measure: Measure, units: Sequence[Unit], workers: int, address: str) -> Iterator[pa.Table]:
    """One block of a Ray dataset a piece. The machines of the cluster have to see the run's folder under the same path."""
    require_packages("filter.ray", "ray")
    cluster = importlib.import_module("r1distill.serve.cluster")
    data = importlib.import_module("ray.data")
    with cluster.connected(address, "filter.ray"):
        context = data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        rows = [asdict(unit) for unit in units]
        blocks = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            partial(measure_row, measure), batch_size=None, batch_format="pyarrow", concurrency=workers
        )
        yield from blocks.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=AHEAD)


def measure_row(measure: Measure, row: pa.Table) -> pa.Table:
    [fields] = row.to_pylist()
    return measure(Unit(**fields))
