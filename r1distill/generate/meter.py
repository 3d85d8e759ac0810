"""What a run is doing: one line for a person, the same as JSON lines for a file, and numbers a Prometheus can scrape."""

import importlib
import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.generate.sampler import Taken

WINDOW_S = 60.0  # of which the speeds are
LINE_EVERY_S = 10.0  # in the file


class Meter:
    """Counts what is taken in this attempt. Tokens are those of finished samples, at the moment they finish."""

    def __init__(self, label: str, file: Path | None = None, usd_per_million_tokens: float | None = None) -> None:
        self.label, self.file, self.usd_per_million_tokens = label, file, usd_per_million_tokens
        self.samples = self.failed = self.kept = self.tokens_in = self.tokens_out = 0
        self.running = self.waiting = 0
        self.judged = False
        self.started = self.last_line = time.monotonic()
        self.history: deque[tuple[float, int, int]] = deque([(self.started, 0, 0)])

    def count(self, taken: Taken) -> None:
        """A kept trace is one that is correct, where correctness is known while sampling; else one that ended by itself."""
        trace = taken.trace
        self.samples += 1
        self.failed += trace.finish_reason == "error"
        self.judged |= taken.outcome is not None
        self.kept += taken.outcome == "correct" if self.judged else trace.finish_reason == "stop"
        self.tokens_in += trace.n_prompt_tokens
        self.tokens_out += trace.n_tokens - (trace.continued_from or 0)
        now = time.monotonic()
        self.history.append((now, self.tokens_in, self.tokens_out))
        while len(self.history) > 2 and self.history[1][0] < now - WINDOW_S:
            self.history.popleft()
        if self.file is not None and now - self.last_line >= LINE_EVERY_S:
            self.write_line()

    def speeds(self) -> tuple[float, float]:
        """Tokens a second read and written, over the last minute."""
        (began, tokens_in, tokens_out), now = self.history[0], time.monotonic()
        seconds = max(now - began, 1e-9)
        return (self.tokens_in - tokens_in) / seconds, (self.tokens_out - tokens_out) / seconds

    def numbers(self) -> dict[str, Any]:
        """Everything, under the names that the file and the metrics have."""
        speed_in, speed_out = self.speeds()
        found: dict[str, Any] = {
            "traces": self.samples,
            "failed": self.failed,
            "correct" if self.judged else "finished": self.kept,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "tokens_in_per_second": round(speed_in, 1),
            "tokens_out_per_second": round(speed_out, 1),
            "requests_running": self.running,
            "requests_waiting": self.waiting,
            "tokens_per_kept_trace": round(self.tokens_out / self.kept, 1) if self.kept else None,
        }
        if self.usd_per_million_tokens is not None:
            found["usd"] = round(self.tokens_out * self.usd_per_million_tokens / 1e6, 4)
        return found

    def note(self) -> str:
        found = self.numbers()
        kept = "correct" if self.judged else "finished"
        parts = [
            f"{found[kept]:,} {kept}",
            f"{found['tokens_out']:,} tokens",
            f"{found['tokens_out_per_second']:,.0f}/s out, {found['tokens_in_per_second']:,.0f}/s in",
            f"{self.running} running, {self.waiting} waiting",
        ]
        if self.kept:
            parts.append(f"{found['tokens_per_kept_trace']:,.0f} tokens a {kept} trace")
        if "usd" in found:
            parts.append(f"{found['usd']:,.2f} USD")
        return ", ".join(parts)

    def write_line(self) -> None:
        """Append the numbers to the file. A line of its own in one write, so that none is ever half there for a reader."""
        self.last_line = time.monotonic()
        if self.file is None:
            return
        line = {"time": round(time.time(), 3), "seconds": round(self.last_line - self.started, 3), "stage": self.label}
        with self.file.open("ab", buffering=0) as file:
            file.write(json.dumps({**line, **self.numbers()}).encode() + b"\n")


@contextmanager
def metrics_server(port: int, meters: list[Meter]) -> Iterator[None]:
    """Serve the numbers of the last of `meters` at http://127.0.0.1:PORT/metrics while the block runs; not for port 0.

    Raises UserError where the port is taken.
    """
    if not port:
        yield
        return
    prometheus = importlib.import_module("prometheus_client")
    core = importlib.import_module("prometheus_client.core")
    registry = prometheus.CollectorRegistry()

    class Collector:
        def collect(self) -> Iterator[Any]:
            if not meters:
                return
            for name, value in meters[-1].numbers().items():
                if value is not None:
                    family = core.GaugeMetricFamily(f"r1distill_{name}", name.replace("_", " "), labels=["stage"])
                    family.add_metric([meters[-1].label], value)
                    yield family

    registry.register(Collector())
    try:
        server, thread = prometheus.start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise UserError(
            f"generate.metrics_port = {port}: cannot be opened: {error.strerror}; choose a free one, or 0 for none"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
