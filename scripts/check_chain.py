"""Kill a chain of trainings with SIGKILL while its last link trains, continue it, and see that nothing was made twice.

    python scripts/check_chain.py [RECIPE = quickstart-chain] [section.key=value …]

Ends with 1 where a link that was done before the kill was made again, the last training did not go on from its checkpoint, or
the lineage of the last link is not that of the recipe.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from check_kill import STAGES, is_in_the_middle, record, run_until

from r1distill.chain.lineage import LINEAGE
from r1distill.chain.links import links_of
from r1distill.recipe import find_recipe, load_recipe
from r1distill.store import read_json


def finished(folder: Path) -> dict[str, Any]:
    return {stage: record(folder, stage).get("finished_at") for stage in STAGES}


def main() -> None:
    name, overrides = (sys.argv[1:] or ["quickstart-chain"])[0], sys.argv[2:]
    folders = [run.folder for run in links_of(load_recipe(find_recipe(name), overrides))]
    command = [sys.executable, "-m", "r1distill", "chain", name, *overrides]
    killed = run_until(lambda: is_in_the_middle(folders[-1], "train"), command) is None
    print(f"check_chain: {'killed' if killed else 'was over before it could be killed'}", flush=True)
    before = [finished(folder) for folder in folders]
    checkpoint = max(
        (path.name for path in (folders[-1] / "student" / "checkpoints").glob("checkpoint-*")),
        key=lambda name: int(name.split("-")[1]),
        default="none",
    )
    second = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(second.stdout, end="")
    after = [finished(folder) for folder in folders]
    again = [
        f"{folder.name}.{stage}"
        for folder, old, new in zip(folders, before, after, strict=True)
        for stage in STAGES
        if old[stage] not in (None, new[stage])
    ]
    went_on = f"continuing from {checkpoint}" in second.stdout
    lineage = read_json(folders[-1] / LINEAGE)
    for each in lineage:
        print(f"  {each['run']}: {each['teacher']} → {each['student']}")
    for folder in folders:
        scores = record(folder, "eval")["counts"]["accuracy"]
        print(f"  {folder.name}: {scores}")
    print(
        f"check_chain: made again: {', '.join(again) or 'nothing'}; {'' if went_on else 'NOT '}continued from {checkpoint}"
    )
    whole = [each["run"] for each in lineage][: len(folders)] == [folder.name for folder in folders]
    sys.exit(0 if killed and not second.returncode and not again and went_on and whole else 1)


if __name__ == "__main__":
    main()
