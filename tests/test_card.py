"""The card: what the Hub reads, what a person reads, and that nobody else's text becomes markup."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from filtered_run import filtered, many, problem, trace
from huggingface_hub import DatasetCard
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from r1distill.errors import UserError
from r1distill.filter.card import told, with_files
from r1distill.filter.licenses import conditions_of, hub_license, license_fields, teacher_license
from r1distill.filter.markdown import bar, histogram, plain, table
from r1distill.filter.measured import measure, size_category
from r1distill.filter.rebuild import rebuild_recipe, recipe_sha256, toml
from r1distill.filter.stage import filter_stage
from r1distill.front_matter import front_matter
from r1distill.html_text import is_hidden
from r1distill.recipe import load_recipe
from r1distill.run import Clock, Run
from r1distill.store import write_json

HOSTILE = "</td><script>alert(1)</script>| *x* [a](http://evil.example) `y` ![z](u) \u202e\x00 ---\n---\n# title"
MARKDOWN = MarkdownIt("commonmark").enable("table")


def card_of(run: Run) -> str:
    return (run.dataset / "README.md").read_text(encoding="utf-8")


def cells(markdown: str) -> list[str]:
    """The texts of all cells of the tables, as a renderer shows them. Raises where one holds anything but text."""
    found = []
    for token in MARKDOWN.parse(markdown):
        if token.type == "inline" and token.level == 4:  # in a cell
            found.append("".join(child.content for child in token.children or [] if child.type == "text"))
    return found


def test_the_metadata_is_what_the_hub_takes(tmp_path: Path) -> None:
    problems, traces = many(30)
    languages = pa.table(
        {
            "problem_id": [t.problem_id for t in traces],
            "sample": [t.sample for t in traces],
            "problem_language": ["en"] * 58 + ["zh", ""],
            "kind": ["math"] * 60,
        }
    )
    run = filtered(tmp_path, problems, traces, tags=languages, filter={"validation_fraction": 0.3})
    data = DatasetCard(card_of(run)).data.to_dict()
    assert data["license"] == ["cc-by-nc-4.0", "mit", "unknown"]  # two sources, and a teacher that nobody knows
    assert data["language"] == ["en", "zh"]
    assert data["task_categories"] == ["text-generation"]
    assert data["size_categories"] == ["n<1K"]
    assert {"reasoning", "math"} <= set(data["tags"])
    [config] = data["configs"]
    assert config["data_files"] == [
        {"split": "train", "path": "train.parquet"},
        {"split": "validation", "path": "validation.parquet"},
    ]


def test_the_card_says_what_was_measured(tmp_path: Path) -> None:
    problems, traces = many(30)
    run = filtered(
        tmp_path, problems, traces, wrong=[("003", 0), ("003", 1), ("004", 0)], generate={"temperature": 0.7},
        contamination={"enabled": False},
    )  # fmt: skip
    card = card_of(run)
    said = cells(card)
    assert "57 reasoning traces for 29 problems, sampled, verified and filtered" in card
    assert said[said.index("dropped: incorrect") + 1] == "3"
    assert said[said.index("sampled") + 1] == "60"
    assert "| **kept** | 57 |" in card
    assert "temperature 0.7, top_p 0.95, at most 32,768 tokens" in said
    lengths = [t.n_tokens for t in traces if (t.problem_id, t.sample) not in [("003", 0), ("003", 1), ("004", 0)]]
    assert sum(count for _, _, count in histogram(lengths)) == 57
    assert f"most {max(lengths):,} tokens" in card
    assert "The problems were not compared with benchmarks." in card
    for license, n in (("mit", 29), ("cc-by-nc-4.0", 28)):
        assert said[said.index(license) + 1] == str(n)
    assert "no commercial use" in card
    assert "licence: unknown" in card


def test_no_folder_of_this_machine_is_told(tmp_path: Path) -> None:
    """Problems that name no source have the path of their file as one."""
    own = [problem(name, source=f"{tmp_path}/{name}.jsonl") for name in "ab"]
    run = filtered(tmp_path, own, [trace("a"), trace("b")])
    assert str(tmp_path) not in card_of(run)
    assert {"a.jsonl", "b.jsonl"} <= set(cells(card_of(run)))
    assert measure(run.dataset).licenses.keys() == {("a.jsonl", "MIT"), ("b.jsonl", "MIT")}


def test_the_contamination_report_is_carried_over(tmp_path: Path) -> None:
    report = {
        "method": "10-grams",
        "removed": 3,
        "benchmarks": {
            "aime24": {"sha256": "ab", "problems": 30, "matches": 3},
            "math500": {"sha256": "cd", "problems": 500},
        },
        "examples": [{"problem_id": "a", "span": HOSTILE}],
        "none": [],
    }
    said = cells("\n".join(told(report)))
    assert said[said.index("removed") + 1] == "3"
    assert said[said.index("aime24") + 1 :][:3] == ["ab", "30", "3"]
    assert said[said.index("math500") + 1 :][:3] == ["cd", "500", ""]
    run = filtered(tmp_path, [problem("a")], [trace("a")])
    said = cells(card_of(run))
    assert said[said.index("prompts/quickstart/heldout.jsonl") - 1] == "quickstart"
    write_json(run.contamination, report)
    filter_stage(run, Clock(run, "filter"))
    assert "aime24" in card_of(run)
    assert "were not compared" not in card_of(run)


def test_hostile_names_are_text_in_the_card_and_in_its_metadata(tmp_path: Path) -> None:
    run = filtered(
        tmp_path,
        [problem("a", source=HOSTILE, license=HOSTILE)],
        [trace("a")],
        teacher={"model": HOSTILE, "revision": HOSTILE},
        generate={"prefill": HOSTILE},
    )
    card = card_of(run)
    data = DatasetCard(card).data.to_dict()
    assert data["license"] == "other" or "other" in data["license"]
    assert "\n" not in data["pretty_name"]
    kinds = Counter(
        child.type for token in MARKDOWN.parse(card[card.index("\n---\n") + 5 :]) for child in token.children or []
    )
    assert not kinds.keys() & {"html_inline", "image"}
    assert kinds["link_open"] == 1  # our own, to the last section
    assert not [token for token in MARKDOWN.parse(card[card.index("\n---\n") + 5 :]) if token.type == "html_block"]
    shown = HOSTILE.replace("\u202e", "⟨U+202E⟩").replace("\x00", "⟨U+0000⟩").replace("\n", " ")
    assert shown in cells(card)


@given(st.text(max_size=80))
def test_a_cell_shows_the_very_text(text: str) -> None:
    shown = "".join(f"⟨U+{ord(one):04X}⟩" if is_hidden(one) else one for one in " ".join(text.split()))
    rows = "\n".join(table(("a", "b"), [(plain(text), "x")]))
    assert cells(rows) == ["a", "b", shown.strip(), "x"]


@example({"x": "\x85"})
@example({"x": "a\u2028---\u2029b\n---\n"})
@given(st.dictionaries(st.sampled_from(["license_name", "pretty_name", "x"]), st.text(max_size=40)))
def test_any_value_is_read_again_and_none_ends_the_metadata(values: dict[str, str]) -> None:
    text = front_matter({"license": "mit", **values})
    assert yaml.safe_load(text) == {"license": "mit", **values}
    assert "---" not in text.splitlines()


def test_the_same_card_for_other_files_and_columns(tmp_path: Path) -> None:
    card = card_of(filtered(tmp_path, [problem("a")], [trace("a")]))
    other = with_files(card, {"train": "train.jsonl"}, "Only `x`.")
    assert DatasetCard(other).data.to_dict()["configs"][0]["data_files"] == [{"split": "train", "path": "train.jsonl"}]
    body = card[card.index("\n---\n") :]
    start, end = body.index("## Columns\n"), body.index("## Made again")
    assert "`problem_id`, `sample`" in body[start:end]
    assert other[other.index("\n---\n") :] == f"{body[:start]}## Columns\n\nOnly `x`.\n\n{body[end:]}"
    with pytest.raises(UserError, match="no metadata that can be read"):
        with_files("# no metadata", {}, "")


# ---------------------------------------------------------------- licences


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("MIT", "mit"), ("Apache 2.0", "apache-2.0"), ("Apache License 2.0", "apache-2.0"), ("apache-2.0", "apache-2.0"),
        ("The MIT License", "mit"), ("CC BY 4.0", "cc-by-4.0"), ("CC-BY-NC-4.0", "cc-by-nc-4.0"), ("", "unknown"),
        ("  ", "unknown"), ("cc0", "cc0-1.0"), ("© MAA: for evaluation only", "other"), ("GPLv3", "gpl-3.0"),
        ("Apache License, Version 2.0", "apache-2.0"), ("llama3.1", "llama3.1"),
    ],
)  # fmt: skip
def test_licences_have_the_names_of_the_hub(stated: str, name: str) -> None:
    assert hub_license(stated) == name


def test_licences_that_differ_are_all_said() -> None:
    assert license_fields(["MIT", "mit"]).license == "mit"
    assert license_fields([]).license == "unknown"
    assert license_fields(["MIT", ""]).license == ["mit", "unknown"]
    fields = license_fields(["MIT", "own terms", "CC BY 4.0"])
    assert (fields.license, fields.license_name) == (["cc-by-4.0", "mit", "other"], "own terms")
    assert conditions_of(["MIT", "CC-BY-NC-SA-4.0"]) == ["no commercial use", "the same licence for what is made of it"]
    assert conditions_of(["MIT", "Apache 2.0", ""]) == []


def test_the_teacher_s_licence_is_that_of_its_card_or_of_its_name(tmp_path: Path) -> None:
    assert teacher_license("deepseek-ai/DeepSeek-R1") == "mit"
    assert teacher_license("deepseek-ai/DeepSeek-R1-Distill-Llama-70B") == "llama3.3"
    assert teacher_license("quickstart:teacher") == "apache-2.0"
    assert teacher_license("org/of-nobody") == ""
    for text, license in (
        ("---\nlicense: gemma\n---\n# model", "gemma"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense: [\n---\n", ""),
        ("no metadata", ""),
    ):
        (tmp_path / "README.md").write_text(text)
        assert teacher_license(str(tmp_path)) == license


# ---------------------------------------------------------------- numbers


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_a_histogram_counts_every_value_once_in_few_round_bins(values: list[float]) -> None:
    bins = histogram(values)
    assert sum(count for _, _, count in bins) == len(values)
    assert 1 <= len(bins) <= 12
    for low, high, count in bins:
        assert abs(count - sum(low <= value < high for value in values)) <= sum(
            abs(value - edge) < 1e-9 * max(edge, 1) for value in values for edge in (low, high)
        )
    assert re.fullmatch(r"[125]e[+-]\d+", f"{bins[0][1]:.0e}")


def test_bars_are_as_long_as_their_counts() -> None:
    assert [len(bar(count, 24)) for count in (0, 1, 12, 24)] == [0, 1, 12, 24]
    assert bar(1, 1_000_000) == "▏"


@pytest.mark.parametrize(
    ("examples", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (99_999, "10K<n<100K"),
        (1_000_000, "1M<n<10M"),
        (10**9, "1B<n<10B"),
    ],
)
def test_sizes_have_the_names_of_the_hub(examples: int, name: str) -> None:
    assert size_category(examples) == name


def test_what_is_measured_is_what_is_there(tmp_path: Path) -> None:
    problems, traces = many(30, 3)
    run = filtered(tmp_path, problems, traces, filter={"validation_fraction": 0.4})
    found = measure(run.dataset)
    assert found.problems == 30
    assert found.examples == 90
    assert found.licenses == {("set 0", "MIT"): 45, ("set 1", "CC-BY-NC-4.0"): 45}
    assert sum(found.tokens.values()) == sum(t.n_tokens for t in traces)
    assert found.counts["outcome"] == {"correct": 90}
    assert sorted(found.values["mean_entropy_nats"]) == sorted(t.mean_entropy_nats or 0 for t in traces)


# ---------------------------------------------------------------- made again


def test_the_recipe_in_the_card_makes_the_same_and_tells_no_server(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "teacher": {"urls": ["http://me:secret@node1:8000/v1"], "api_key_env": "MY_KEY"},
        "generate": {"prefill": "<think>\n```\n\x7f\"'", "temperature": 0.7, "concurrency": 7},
        "problems": {"where": {"level": {"at_least": 3}, "a b": True}},
    }
    run = filtered(tmp_path, [problem("a")], [trace("a")], **sections)
    text = rebuild_recipe(run.recipe)
    card = card_of(run)
    assert text.rstrip() in card
    assert recipe_sha256(run.recipe) in card
    for private in ("node1", "secret", "MY_KEY", str(tmp_path), "concurrency"):
        assert private not in card
    (tmp_path / "again.toml").write_text(text, encoding="utf-8")
    (tmp_path / "problems.jsonl").touch()
    again = load_recipe(tmp_path / "again.toml", ["teacher.urls=['http://127.0.0.1/v1']"])
    assert again.generate.model_copy(update={"concurrency": 7}) == run.recipe.generate
    assert again.filter == run.recipe.filter
    assert again.problems.where == run.recipe.problems.where
    assert (again.seed, again.verify) == (run.recipe.seed, run.recipe.verify)


@given(
    st.recursive(
        st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=9), lambda each: st.lists(each, max_size=3)
    )
)
def test_values_are_read_back_from_toml(value: Any) -> None:
    import tomllib

    assert tomllib.loads(f"x = {toml({'y': value})}") == {"x": {"y": value}}
