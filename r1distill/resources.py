"""Where prompts/, eval/ and the recipes are: beside the package in a checkout, inside it in an installed wheel."""

from pathlib import Path

from r1distill.errors import UserError

PACKAGE = Path(__file__).resolve().parent
SHIPPED = PACKAGE / "_data" if (PACKAGE / "_data").is_dir() else PACKAGE.parent


def find_file(name: str, what: str) -> Path:
    """`name` as given (from the working directory), else the file of that name that r1distill ships.

    Raises UserError, naming `what` the file is, where neither exists.
    """
    for candidate in (Path(name).expanduser(), SHIPPED / name):
        if candidate.exists():
            return candidate.resolve()
    raise UserError(f"{what}: no such file: {name} (looked in {Path.cwd()} and {SHIPPED}); correct the path")


def read_file(name: str, what: str) -> str:
    """The text of `find_file(name, what)`. Raises UserError where it is no text file that can be read."""
    path = find_file(name, what)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{what}: {path}: not UTF-8 text: {error}; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{what}: {path}: cannot be read: {error.strerror}; give a text file") from None


def shipped_names(folder: str, suffix: str) -> list[str]:
    """The shipped files of a folder without their suffix, sorted: the recipes, the benchmarks."""
    return sorted(path.name.removesuffix(suffix) for path in (SHIPPED / folder).glob(f"*{suffix}"))
