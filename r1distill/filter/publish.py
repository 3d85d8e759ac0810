"""`r1distill publish RUN --to TARGET`: the dataset or the student of a run, to the Hub or a folder."""

import tempfile
from fnmatch import fnmatch
from pathlib import Path

from r1distill.console import say
from r1distill.errors import UserError
from r1distill.filter.exports import FORMATS, export_dataset
from r1distill.filter.targets import Package, Repository, target_of, to_folder, to_hub
from r1distill.filter.whole import check_dataset, check_names, check_student, check_texts
from r1distill.run import Run, locked, open_run

DATASET_FILES = (
    "README.md", "train.parquet", "validation.parquet", "train.jsonl", "validation.jsonl", "dataset_info.json",
)  # fmt: skip
STUDENT_FILES = (  # neither checkpoints nor training_args.bin, which is a pickle of all arguments, a token among them
    "README.md", "LICENSE*", "NOTICE*", "config.json", "generation_config.json", "*.safetensors",
    "model.safetensors.index.json", "adapter_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "vocab.json", "vocab.txt", "merges.txt", "training_log.json",
)  # fmt: skip


def publish(
    folder: Path,
    to: str,
    *,
    what: str = "dataset",
    format: str | None = None,
    private: bool = False,
    revision: str | None = None,
    dry_run: bool = False,
) -> None:
    """Check that it is whole and has no key in it, say what goes where, and send it.

    Raises UserError where it is not, and where the target is none; the target is as it was then.
    """
    if what not in ("dataset", "student"):
        raise UserError(f"--what {what}: it must be dataset or student")
    if format is not None and (what != "dataset" or format not in FORMATS):
        raise UserError(f"--format {format}: a dataset can be had as {', '.join(FORMATS)}, and without it as it is")
    target = target_of(to, "dataset" if what == "dataset" else "model")
    if isinstance(target, Path) and (private or revision):
        raise UserError(f"--to {to}: --private and --revision are for the Hub, and this is a folder")
    run = open_run(folder)
    with locked(run), tempfile.TemporaryDirectory(prefix=".publish-", dir=run.folder) as temporary:
        if what == "student":
            check_student(run)
            package = package_of(run.student, "student")
        else:
            check_dataset(run)
            package = package_of(run.dataset if format is None else exported(run, format, Path(temporary)), "dataset")
        check_texts(package.folder / name for name in package.names)
        for name in package.names:
            say(f"  {size((package.folder / name).stat().st_size):>10}  {name}")
        total = sum((package.folder / name).stat().st_size for name in package.names)
        where = f"{package.kind} {target.name} of the Hub" if isinstance(target, Repository) else str(target)
        branch = f", branch {revision}" if revision else ""
        say(f"{len(package.names)} files, {size(total)} → {where}{branch}{', private' if private else ''}")
        if dry_run:
            say("dry run: nothing was written or sent")
        elif isinstance(target, Repository):
            say(to_hub(package, target.name, private=private, revision=revision))
        else:
            to_folder(package, target)


def exported(run: Run, format: str, folder: Path) -> Path:
    export_dataset(run.dataset, format, folder, run.folder.resolve().name)
    return folder


def package_of(folder: Path, what: str) -> Package:
    """The files of a folder that are published, and no others. Raises UserError for a link, a key or a journal among them."""
    there = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    names = [path.relative_to(folder).as_posix() for path in there]
    check_names(names)
    patterns = DATASET_FILES if what == "dataset" else STUDENT_FILES
    taken = tuple(name for name in names if "/" not in name and any(fnmatch(name, pattern) for pattern in patterns))
    if links := [name for name in taken if (folder / name).is_symlink()]:
        raise UserError(f"{folder / links[0]}: a link, and only files are published; put the file there itself")
    left = sorted({name.partition("/")[0] for name in names if name not in taken})
    if left:
        say(f"  left out: {', '.join(left)}")
    return Package("dataset" if what == "dataset" else "model", folder, taken, patterns)


def size(n_bytes: int) -> str:
    """In the unit that suits it."""
    value, unit = float(n_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} B" if unit == "B" else f"{value:,.1f} {unit}"
