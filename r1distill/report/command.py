"""`r1distill report RUN`: write RUN/report.html from the files of the run, finished or not."""

import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from r1distill.report.embedding import Embedding
from r1distill.report.page import head, title_of
from r1distill.report.reading import RunFiles, read_run
from r1distill.store import replacing

END = "</body>\n</html>\n"
LARGE_BYTES = 400 << 20  # browsers open more, but take their time


def write_report(folder: Path, samples: int | None = None) -> str:
    """Write report.html; with `samples`, embed at most so many traces a question and model. Returns what to tell the user.

    Raises UserError where `folder` is not the folder of a run, or one of its files cannot be read.
    """
    run = read_run(folder)
    path = folder / "report.html"
    # beside the page, which is as large: there is room for both, or the report fails before it replaces anything
    with replacing(path) as temporary, tempfile.TemporaryFile(dir=folder) as chunks:
        embedding = Embedding(chunks, samples)
        for scored in run.scored:
            embedding.add(scored)
        titles = {
            scored.task: title_of([one for one in run.scored if one.task == scored.task]) for scored in run.scored
        }
        index = embedding.index(titles)
        with temporary.open("wb") as file:
            file.write(head(run, index, embedding.measured, facts(run, embedding)).encode(errors="replace"))
            chunks.seek(0)
            shutil.copyfileobj(chunks, file, 1 << 20)
            file.write(END.encode())
    size = path.stat().st_size
    lines = [f"{path}: {size / 2**20:,.1f} MiB, {len(index['question']):,} traces; open it in a browser"]
    if size > LARGE_BYTES:
        lines.append(
            "that is much for a browser: --samples 4 embeds four traces a question, the scores stay those of all"
        )
    return "\n".join(lines)


def facts(run: RunFiles, embedding: Embedding) -> str:
    tasks = len({one.task for one in run.scored})
    models = len({one.model for one in run.scored})
    traces = len(embedding.columns.question)
    counts = {"model": models, "task": tasks, "trace": traces}
    words = [f"{count:,} {name}{'s' * (count != 1)}" for name, count in counts.items() if count]
    if embedding.left_out:
        words.append(f"{embedding.left_out:,} more traces are scored here and not shown (--samples)")
    return " · ".join([*words, f"{datetime.now():%Y-%m-%d %H:%M}"])
