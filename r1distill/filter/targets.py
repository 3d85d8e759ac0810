"""Where things are published: a folder, or a repository of the Hub. Either has all of it afterwards, or is as it was."""

import importlib
import os
import re
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from r1distill.errors import UserError, require_packages
from r1distill.store import replacing_folder

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_PREFIX = "hf://"
TOKEN = "HF_TOKEN"


@dataclass(frozen=True, slots=True)
class Package:
    """What is published: `names` of `folder`. A file of the target that `patterns` match is ours, and may go."""

    kind: Literal["dataset", "model"]
    folder: Path
    names: tuple[str, ...]
    patterns: tuple[str, ...]

    def is_ours(self, name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of the Hub, `org/name`."""

    name: str


def target_of(to: str, kind: str) -> Path | Repository:
    """The folder or repository that `--to` means. Raises UserError where it could be either, or is neither."""
    if to.startswith("file://"):
        parts = urlsplit(to)
        path = Path(unquote(parts.path))
        if parts.netloc not in ("", "localhost") or not path.is_absolute():
            raise UserError(
                f"--to {to}: a file:// target is one on this machine, with an absolute path: file:///data/traces"
            )
        return path.resolve()
    if to.startswith(HUB_PREFIX):
        name = to.removeprefix(HUB_PREFIX).removeprefix(f"{kind}s/")
        if not HUB_ID.fullmatch(name):
            raise UserError(f"--to {to}: a repository of the Hub is hf://{kind}s/ORG/NAME")
        return Repository(name)
    if "://" in to:
        raise UserError(
            f"--to {to}: unknown; give ORG/NAME of the Hub, a folder (./name, /data/name) or file:///data/name"
        )
    if to.startswith(("/", "./", "../", "~")) or to in (".", ".."):
        return Path(to).expanduser().resolve()
    if not HUB_ID.fullmatch(to) or Path(to).exists() or Path(to.partition("/")[0]).is_dir():
        raise UserError(
            f"--to {to}: write ./{to} for a folder, or {HUB_PREFIX}{kind}s/ORG/NAME for a repository of the Hub"
        )
    return Repository(to)


def to_folder(package: Package, target: Path) -> None:
    """Copy it to a folder, in place of what was published there before.

    Raises UserError where the folder holds anything else, or cannot be written.
    """
    source = package.folder.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise UserError(f"--to {target}: this is where it comes from; choose another folder")
    if target.is_dir():
        there = [path.relative_to(target).as_posix() for path in sorted(target.rglob("*")) if not path.is_dir()]
        if others := [name for name in there if not package.is_ours(name)]:
            raise UserError(
                f"--to {target}: holds {others[0]}, which was not published there; choose a new or empty folder"
            )
    try:
        with replacing_folder(target) as folder:
            for name in package.names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(package.folder / name, folder / name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--to {target}: cannot be written: {reason}; it is as it was") from None


def to_hub(package: Package, repository: str, *, private: bool, revision: str | None) -> str:
    """Send it to the Hub, as one commit, and return its address. The token is that of the environment, never a stored one.

    Large files go first, and are seen by nobody before the commit. `upload_folder` would commit a large folder in parts.
    Raises UserError where the Hub refuses or cannot be reached; the repository is as it was then.
    """
    require_packages("publishing on the Hub", "huggingface_hub")
    token = os.environ.get(TOKEN)
    if not token:
        raise UserError(f"publishing on the Hub needs a token that may write, in the environment variable {TOKEN}")
    hub = importlib.import_module("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        return committed(hub, hub.HfApi(token=token), package, repository, private, revision)
    except (
        OSError,
        ValueError,
        RuntimeError,
        errors.HTTPError,
    ) as error:  # refused, offline, broken off, of a wrong form
        said = " ".join(str(error.__cause__ or error).split())
        reason = said.partition(" For more information check")[0] or type(error).__name__
        raise UserError(f"--to {repository}: not published: {reason}; what was there is as it was") from None


def committed(hub: Any, api: Any, package: Package, repository: str, private: bool, revision: str | None) -> str:
    of_repository = {"repo_id": repository, "repo_type": package.kind}
    api.create_repo(**of_repository, private=private or None, exist_ok=True)
    if private and not api.repo_info(**of_repository).private:
        raise UserError(
            f"--to {repository} --private: it exists already and is public; make it private, or choose another"
        )
    if revision and not revision.startswith("refs/"):
        api.create_branch(**of_repository, branch=revision, exist_ok=True)
    there = api.list_repo_files(**of_repository, revision=revision)
    operations = [hub.CommitOperationAdd(name, package.folder / name) for name in package.names]
    stale = [name for name in there if package.is_ours(name) and name not in package.names]
    operations += [hub.CommitOperationDelete(name) for name in stale]
    commit = api.create_commit(
        **of_repository,
        operations=operations,
        revision=revision,
        commit_message=f"r1distill publishes a {package.kind}",
    )
    return str(commit.commit_url)
