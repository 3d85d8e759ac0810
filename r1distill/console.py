"""The terminal: what a person sees. Everything that libraries print goes to the run's logs/ instead."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

PLAIN_LINE_EVERY_S = 20.0
REDRAW_EVERY_S = 0.2

console = Console(highlight=False, soft_wrap=True)


@contextmanager
def library_output_to(log: Path) -> Iterator[None]:
    """Send file descriptors 1 and 2 to `log`, C++ code and child processes included, and keep `console` on the terminal.

    vLLM's engine, oneDNN, tqdm and Python warnings all write there on their own; only at this level does nothing escape.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved_stdout, saved_stderr = os.dup(1), os.dup(2)
    terminal = os.fdopen(os.dup(saved_stdout), "w", encoding="utf-8", errors="replace")
    log_handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    previous = console._file  # None for whatever sys.stdout is; `console.file` would hold on to the present one
    try:
        os.dup2(log_handle, 1)
        os.dup2(log_handle, 2)
        console.file = terminal
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved_stdout, 1)
        os.dup2(saved_stderr, 2)
        console._file = previous
        terminal.close()
        for handle in (log_handle, saved_stdout, saved_stderr):
            os.close(handle)


@contextmanager
def terminal_handle() -> Iterator[int]:
    """A file descriptor of the terminal, for a child process that draws its own progress."""
    console.file.flush()
    yield console.file.fileno()


class Progress:
    """A bar with ETA on a terminal, a line every 20 seconds elsewhere. Use as a context manager.

    `total` None is not known, and there is no ETA.
    """

    def __init__(self, label: str, total: int | None, done: int = 0) -> None:
        self.label, self.total, self.done = label, total or 0, done
        self.is_known = total is not None
        self.first = done
        self.started = self.last_line = time.monotonic()
        self.note: Callable[[], str] = lambda: ""
        self.bar: RichProgress | None = None

    def __enter__(self) -> "Progress":
        if console.is_terminal:
            columns = (
                SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            )  # fmt: skip
            self.bar = RichProgress(*columns, console=console)
            self.task = self.bar.add_task(
                self.label, total=self.total if self.is_known else None, completed=self.done, note=""
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
        elif self.done > self.first:
            self.print_line()

    def advance(self, steps: int = 1, note: Callable[[], str] = lambda: "") -> None:
        """`note` is asked for when a line is drawn."""
        self.done += steps
        self.note = note
        if self.bar:
            is_last = self.is_known and self.done >= self.total
            if time.monotonic() - self.last_line >= REDRAW_EVERY_S or is_last:
                self.last_line = time.monotonic()
                self.bar.update(
                    self.task, completed=self.done, total=self.total if self.is_known else None, note=note()
                )
        elif time.monotonic() - self.last_line >= PLAIN_LINE_EVERY_S:
            self.print_line()

    def print_line(self) -> None:
        self.last_line = time.monotonic()
        elapsed = self.last_line - self.started
        fresh = self.done - self.first
        eta = f", ETA {clock((self.total - self.done) * elapsed / fresh)}" if fresh and self.done < self.total else ""
        note = f", {self.note()}" if self.note() else ""
        of_total = f"/{self.total}" if self.is_known else ""
        say(f"  {self.label} {self.done}{of_total}, {clock(elapsed)} elapsed{eta}{note}")


def say(text: str = "", style: str | None = None) -> None:
    """Print a line, or several. Model output and paths go through here: see `printable`."""
    console.print(printable(text, lines=True), style=style)


def printable(text: str, *, lines: bool = False) -> Text:
    """A text that others wrote, without what a terminal would obey: neither markup nor control characters.

    What cannot be printed is shown as �: escape sequences, but also the marks that turn the direction of writing. With `lines`
    the ends of lines stay, and tabs as spaces.
    """
    if lines:
        text = text.replace("\r\n", "\n").expandtabs(4)
    return Text("".join(each if each.isprintable() or (lines and each == "\n") else "�" for each in text))


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
