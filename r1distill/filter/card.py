"""README.md of a dataset: the metadata that the Hub reads, and for a person where it is from and what is in it.

All of it is from what was measured or from the recipe; what was not measured is not said, or said to be unknown.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from r1distill.errors import UserError
from r1distill.filter.dataset import COLUMNS, COLUMNS_OF_OTHERS, EXAMPLE_SCHEMA, public_source
from r1distill.filter.licenses import conditions_of, hub_license, license_fields, teacher_license
from r1distill.filter.markdown import histogram_table, plain, table
from r1distill.filter.measured import Measured, measure, quantiles, size_category
from r1distill.filter.rebuild import rebuild_recipe, recipe_sha256
from r1distill.front_matter import front_matter
from r1distill.prompting import load_prompt
from r1distill.run import Run, git_revision, versions
from r1distill.store import read_json

IMPORTED = "imported.json"  # in the run folder, where there are any
MOST_ROWS = 30  # of a table whose length the data decide
LANGUAGE_SHARE = 0.01  # of the problems, from which on a language is one of the dataset
LANGUAGE = re.compile(r"[a-z]{2,3}")
COLUMNS_SECTION = re.compile(r"^(## Columns\n).*?(?=^## )", re.DOTALL | re.MULTILINE)
PARTS = {"train": "train.parquet", "validation": "validation.parquet"}


def dataset_card(run: Run, folder: Path, funnel: Mapping[str, Any]) -> str:
    """The text of README.md for the Parquet files of `folder`. Raises UserError where they are no dataset."""
    found = measure(folder)
    stated = {license for _, license in found.licenses}
    imported = read_json(run.folder / IMPORTED) if (run.folder / IMPORTED).is_file() else {}
    teacher = str(imported.get("model", "") if imported else run.recipe.teacher.model)
    of_teacher = str(imported.get("license") or "") or teacher_license(teacher)
    parts = [
        "---", front(found, teacher, {*stated, of_teacher}), "---", "",
        f"# Reasoning traces of {plain(teacher) or 'an unknown teacher'}", "",
        *summary(found, "" if imported else "sampled, "), "",
        "## Teacher and sampling", "", *(origin(imported, run) if imported else sampling(run)), "",
        "## Funnel", "", *funnel_tables(funnel), "",
        "## Lengths and entropy", "", *histograms(found), "",
        "## Contamination", "", *contamination(run.contamination), "",
        "## Licences", "", *licenses(found, teacher, of_teacher), "",
        "## Columns", "", *columns(found, COLUMNS | COLUMNS_OF_OTHERS if imported else COLUMNS), "",
        "## Made again", "", *rebuilding(run), "",
    ]  # fmt: skip
    return "\n".join(parts)


def front(found: Measured, teacher: str, stated: Iterable[str]) -> str:
    """The metadata, in YAML without the lines around it."""
    fields = license_fields(stated)
    languages = found.counts["problem_language"]
    of_problems = [name for name, n in languages.most_common() if n >= LANGUAGE_SHARE * languages.total()]
    data: dict[str, Any] = {
        "pretty_name": one_line(f"Reasoning traces of {Path(teacher).name or 'an unknown teacher'}"),
        "license": fields.license,
        "license_name": fields.license_name and one_line(fields.license_name),
        "language": [name for name in of_problems if LANGUAGE.fullmatch(name)],
        "task_categories": ["text-generation"],
        "size_categories": [size_category(found.examples)],
        "tags": [
            "reasoning",
            "distillation",
            "synthetic",
            "r1distill",
            *sorted({"math", "code"} & {*found.counts["kind"]}),
        ],
        "configs": configs({split: PARTS[split] for split in found.rows}),
    }
    return front_matter({key: value for key, value in data.items() if value})


def configs(files: Mapping[str, str]) -> list[dict[str, Any]]:
    """Which file is which split, as `datasets.load_dataset` reads it."""
    return [{"config_name": "default", "data_files": [{"split": name, "path": path} for name, path in files.items()]}]


def with_files(card: str, files: Mapping[str, str], columns: str) -> str:
    """The card of the same data in other files, by split, and other columns, which are told in one line.

    Raises UserError where its metadata cannot be read.
    """
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    try:
        data = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        data = None
    if found is None or not isinstance(data, dict):
        raise UserError("README.md of the dataset has no metadata that can be read; run `r1distill filter` again")
    body = COLUMNS_SECTION.sub(lambda section: f"{section[1]}\n{columns}\n\n", card[found.end() :], count=1)
    return f"---\n{front_matter({**data, 'configs': configs(files)})}\n---\n{body}"


def one_line(text: str) -> str:
    return " ".join(text.split())[:100]


# ---------------------------------------------------------------- sections


def summary(found: Measured, done_before: str) -> list[str]:
    rows = [
        (split, f"{count:,}", f"{found.tokens[split]:,}" if found.tokens[split] else "not counted")
        for split, count in found.rows.items()
    ]
    apart = " No problem is in both splits." if len(rows) > 1 else ""
    lines = [
        f"{found.examples:,} reasoning traces for {found.problems:,} problems, {done_before}verified and filtered by "
        f"[r1distill](#made-again).{apart}", "",
        *table(("split", "traces", "tokens of the teacher"), rows),
    ]  # fmt: skip
    if found.pools:
        pools = ", ".join(f"{plain(name)} {count:,}" for name, count in sorted(found.pools.items()))
        lines += ["", f"In the sampling pools (column `pools`): {pools}."]
    return lines


def sampling(run: Run) -> list[str]:
    settings, teacher = run.recipe.generate, run.recipe.teacher
    prompt = load_prompt(settings.prompt, settings.prefill)
    top_k = f", top_k {settings.top_k}" if settings.top_k else ""
    until = f", until {settings.stop_after_correct} correct" if settings.stop_after_correct else ""
    rows = {
        "teacher": plain(teacher.model),
        "revision": plain(teacher.revision or "not fixed"),
        "sampling": f"temperature {settings.temperature:g}, top_p {settings.top_p:g}{top_k}, at most "
        f"{settings.max_tokens:,} tokens",
        "samples a problem": f"{settings.max_samples or settings.samples:,} at most{until}",
        "prompt": f"{plain(Path(settings.prompt).name)}, SHA-256 {prompt.sha256}",
        "forced start": plain(settings.prefill.replace("\n", "\\n")) or "none",
        "seed": str(run.recipe.seed),
    }
    return table(("", ""), list(rows.items()))


def origin(imported: Mapping[str, Any], run: Run) -> list[str]:
    """Of traces that were not sampled here: imported.json, as public_traces.py writes it."""
    settings = run.recipe.generate
    prompt = load_prompt(settings.prompt, settings.prefill)
    rows = [
        (plain(name.replace("_", " ")), plain(str(value)))
        for name, value in imported.items()
        if value not in ("", None)
    ]
    is_theirs = run.recipe.traces is not None and run.recipe.traces.verdicts == "theirs"
    rows.append(("verdicts", "the labels of the set" if is_theirs else "of r1distill"))
    rows.append(("prompt of this dataset", f"{plain(Path(settings.prompt).name)}, SHA-256 {prompt.sha256}"))
    return ["These traces were not sampled by r1distill, but read from a set of others.", "", *table(("", ""), rows)]


def funnel_tables(funnel: Mapping[str, Any]) -> list[str]:
    lines = table(("", "traces"), funnel_rows(funnel))
    sources = sorted(funnel.get("by_source", {}).items(), key=lambda entry: (-entry[1]["sampled"], entry[0]))
    if len(sources) > 1:
        rows = [(plain(public_source(name)), f"{each['sampled']:,}", f"{each['kept']:,}") for name, each in sources]
        lines += ["", *table(("source", "sampled", "kept"), shortened(rows))]
    return lines


def funnel_rows(funnel: Mapping[str, Any]) -> list[tuple[str, str]]:
    dropped = [(f"dropped: {plain(reason)}", f"{count:,}") for reason, count in funnel["dropped"].items()]
    return [("sampled", f"{funnel['sampled']:,}"), *dropped, ("**kept**", f"{funnel['kept']:,}")]


def shortened(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    left = len(rows) - MOST_ROWS
    return rows if left <= 0 else [*rows[:MOST_ROWS], (f"{left:,} more", *[""] * (len(rows[0]) - 1))]


def histograms(found: Measured) -> list[str]:
    lines: list[str] = []
    for name, what, unit, number in (
        ("n_tokens", "length of the reply", "tokens", ",.0f"),
        ("mean_entropy_nats", "mean entropy of the teacher's tokens, lower bound", "nats", ".4g"),
    ):
        values = found.values.get(name)
        if values is None:
            lines += [f"{what.capitalize()}: not measured.", ""]
            continue
        middle, high, most = quantiles(values)
        unmeasured = found.examples - len(values)
        lines += [
            *histogram_table(what, values.tolist(), unit, number), "",
            f"Median {middle:{number}}, 95th percentile {high:{number}}, most {most:{number}} {unit}"
            f"{f'; not measured of {unmeasured:,}' if unmeasured else ''}.", "",
        ]  # fmt: skip
    return lines[:-1]


def contamination(path: Path) -> list[str]:
    """contamination.json as it is: its numbers and names, and its lists as tables."""
    report = read_json(path)
    compared = report.get("settings", {}).get("enabled", True)
    return told(report) if compared else ["The problems were not compared with benchmarks."]


def told(report: Mapping[str, Any]) -> list[str]:
    single = {name: value for name, value in report.items() if not isinstance(value, dict | list)}
    lines = table(("", ""), [(plain(str(name)), plain(str(value))) for name, value in single.items()]) if single else []
    for name, value in report.items():
        rows = value if isinstance(value, list) else []
        if isinstance(value, dict):
            rows = [{name: key, **(each if isinstance(each, dict) else {"": each})} for key, each in value.items()]
        if rows:
            lines += ["", *told_rows([row if isinstance(row, dict) else {name: row} for row in rows])]
    return lines


def told_rows(rows: list[dict[str, Any]]) -> list[str]:
    head = list(dict.fromkeys(name for row in rows for name in row))
    cells = [tuple(plain(str(row.get(name, ""))) for name in head) for row in rows]
    return table([plain(str(name)) for name in head], shortened(cells))


def licenses(found: Measured, teacher: str, of_teacher: str) -> list[str]:
    stated = {license for _, license in found.licenses}
    rows: list[tuple[str, ...]] = [
        (plain(source) or "unknown", named(license), f"{count:,}")
        for (source, license), count in found.licenses.most_common()
    ]
    lines = [
        *table(("source of the problems", "licence", "traces"), shortened(rows)), "",
        f"The replies are those of {plain(teacher) or 'an unknown teacher'}, licence: {named(of_teacher)}.",
    ]  # fmt: skip
    everything = {*stated, of_teacher}
    if len({hub_license(each) for each in everything}) > 1:
        lines += [
            "",
            "They differ: the column `license` has that of each question, and all of them hold for the whole.",
        ]
    if conditions := conditions_of(everything):
        lines += ["", f"Some of them ask for: {'; '.join(conditions)}."]
    if any(not each.strip() for each in everything):
        lines += ["", "Unknown means that the source states none: find out before you use these."]
    return lines


def named(license: str) -> str:
    """A licence as it is stated, with the Hub's name where that is another."""
    name = hub_license(license)
    return name if license.strip().lower() in (name, "") else f"{plain(license)} ({name})"


def columns(found: Measured, known: Mapping[str, str]) -> list[str]:
    tags = [f"`{name}`" for name in found.columns if name not in EXAMPLE_SCHEMA.names]
    lines = table(
        ("column", "what it is"), [(f"`{names.replace(', ', '`, `')}`", what) for names, what in known.items()]
    )
    return lines + (["", f"Measures of each trace (tags): {', '.join(tags)}."] if tags else [])


def rebuilding(run: Run) -> list[str]:
    text = rebuild_recipe(run.recipe)
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    made = {**versions(), **({"git": git} if (git := git_revision()) else {})}
    return [
        f"With this recipe (SHA-256 {recipe_sha256(run.recipe)}) as recipe.toml:", "",
        "```console", "$ r1distill generate recipe.toml && r1distill verify recipe.toml && r1distill filter recipe.toml",
        "```", "", f"Made with {', '.join(f'{name} {version}' for name, version in made.items())}.", "",
        f"{fence}toml", text.rstrip("\n"), fence,
    ]  # fmt: skip
