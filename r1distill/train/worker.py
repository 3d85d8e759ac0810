"""The process that trains: `python -m r1distill.train.worker RUN_DIR`, by itself or under `accelerate launch`.

Training has its own process so that its memory is free again when it ends, and so that accelerate can start many of it.
It reads the run's recipe.json, and leaves what it counted in RUN_DIR/stages/train-result.json.
"""

import os
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path

from r1distill.console import console, library_output_to, say
from r1distill.errors import UserError
from r1distill.process import die_with_parent
from r1distill.prune.stage import with_pruned
from r1distill.run import open_run
from r1distill.store import write_json


def main() -> None:
    run = with_pruned(open_run(Path(sys.argv[1])))
    if len(sys.argv) > 2:
        die_with_parent(int(sys.argv[2]))
    rank = os.environ.get("RANK", "0")
    # debugging a launcher is easier with everything in its own output
    keep = os.environ.get("R1DISTILL_SHOW_LIBRARY_OUTPUT")
    with nullcontext() if keep else library_output_to(run.log("train" if rank == "0" else f"train-rank{rank}")):
        try:
            with console.status("train: starting"):
                from r1distill.train.trainer import train  # noqa: PLC0415 - takes seconds, and its noise belongs into the log
            counts = train(run)
        except UserError as error:
            say(f"error: {error}", style="bold red")
            sys.exit(2)
        except Exception:
            traceback.print_exc()
            say(f"training failed; {run.log('train')} has the whole of it:", style="bold red")
            say(traceback.format_exc(limit=-3))
            sys.exit(1)
        if rank == "0":
            write_json(run.folder / "stages" / "train-result.json", counts)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # Ctrl-C reaches all processes; the one that started this says how to go on
        sys.exit(130)
