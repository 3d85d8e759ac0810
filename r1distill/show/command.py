"""`r1distill show RUN --id/--dropped/--kept/--random`: some of the traces of a run."""

import dataclasses
import random
from pathlib import Path

from r1distill.console import say
from r1distill.errors import UserError
from r1distill.show.choose import Wish, choose
from r1distill.show.trace import read, show

SEEDS = 1_000_000


def show_traces(folder: Path, wish: Wish, *, draw: bool, full: bool) -> None:
    """Print the traces of a run, or of RUN/eval/TASK/MODEL, that are wished for; `draw` without a seed draws one."""
    if sum((wish.id is not None, wish.dropped is not None, wish.kept)) > 1:
        raise UserError("show takes one of --id, --dropped and --kept")
    if draw and wish.seed is None:
        wish = dataclasses.replace(wish, seed=random.SystemRandom().randrange(SEEDS))
    choice = choose(folder, wish)
    for shown in read(folder, choice.places):
        show(shown, full=full)
        say()
    how = "" if wish.seed is None else f", drawn with --seed {wish.seed}"
    more = "" if len(choice.places) == choice.of else "; -n NUMBER shows more"
    say(f"{len(choice.places):,} of {choice.of:,} traces{how}{more}", style="dim")
