"""The recipe: what is read, what is refused, and what a refusal says."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import ROOT, recipe_file, settings, small_run

from r1distill.dry_run import show_plan
from r1distill.errors import UserError
from r1distill.evaluate.protocols import asking_of
from r1distill.evaluate.tasks import load_task
from r1distill.pipeline import names_of_run
from r1distill.recipe import Recipe, all_keys, apply_override, find_recipe, load_recipe, refuse_missing
from r1distill.recipe_reference import reference
from r1distill.resources import find_file, read_file, shipped_names
from r1distill.run import Run
from r1distill.store import read_json, write_json
from r1distill.train_sections import Kl, Schedule

SHIPPED_RECIPES = sorted((ROOT / "scripts" / "recipes").glob("*.toml"))


def refusal(folder: Path, *overrides: str) -> str:
    """What loading the small recipe with these overrides is refused with: one line that names the file."""
    path = recipe_file(folder)
    with pytest.raises(UserError) as refused:
        load_recipe(path, overrides)
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith((str(path), "override"))
    return message


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("generate.temprature=1", "unknown key generate.temprature; did you mean generate.temperature?"),
        ("filter.max_entropy=1", "did you mean filter.entropy or filter.max_mean_entropy_nats?"),
        ("generate.student='x'", "did you mean train.student or chain.student?"),
        ("teacher.temperature=1", "mean generate.temperature or eval.temperature or verify.judge.temperature?"),
        (
            "verify.judge={ modle = 'x' }",
            "unknown key verify.judge.modle; did you mean verify.judge.model?",
        ),
        ("verify.jugde.model=x", "unknown key verify.jugde; did you mean verify.judge?"),
        (
            "train.curriculum.phases=[{untl=1.0}]",
            "train.curriculum.phases.0.untl; did you mean train.curriculum.phases.0.until?",
        ),
        ("temperature=1", "did you mean generate.temperature or eval.temperature"),
        ("trian.dtype='float32'", "unknown key trian; did you mean train?"),
        ("train.learning_rate=1e-4", "TRL's options go in [train.args]"),
        ("teacher.max_model_len=512", "vLLM's options go in [teacher.engine]"),
        ("eval.max_model_len=512", "vLLM's options go in [eval.engine]"),
        ("verify.zzz=1", "known here: timeout_s, workers, memory_gb"),
    ],
)
def test_an_unknown_key_names_the_key_that_was_meant(tmp_path: Path, override: str, remedy: str) -> None:
    assert remedy in refusal(tmp_path, override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("generate.samples=2.5", ("generate.samples = 2.5", "integer")),
        ("generate.samples=0", ("generate.samples = 0", "greater than or equal to 1")),
        ('generate.samples="4"', ("generate.samples = '4'", "integer")),
        ("generate.temperature=hot", ("generate.temperature = 'hot'", "number")),
        ("generate.temperature=nan", ("generate.temperature = nan", "finite")),
        ("generate.temperature=inf", ("generate.temperature = inf", "finite")),
        ("generate.top_p=1.5", ("generate.top_p = 1.5", "less than or equal to 1")),
        ("filter.require_correct=1", ("filter.require_correct = 1", "boolean")),
        ("teacher.urls=http://x/v1", ("teacher.urls = 'http://x/v1'", "list")),
        ("train.dtype=float16", ("train.dtype = 'float16'", "'bfloat16' or 'float32'")),
        (
            'eval.models=["pupil"]',
            ('"pupil" is none of base, teacher, pruned, student, on_policy, quantized, and no folder or Hub id',),
        ),
        (
            'eval.candidates.base={ model = "org/m" }',
            ("candidates.base: a name is", "none of base, teacher, pruned, student, on_policy, quantized"),
        ),
        (
            'eval.candidates.a={ model = "m", urls = ["http://x/v1"], adapter = "x" }',
            ("adapter means nothing", "remove it"),
        ),
        ("eval.models=[]", ("eval.models = []", "at least 1")),
        ("train.peft=8", ("train.peft = 8", "dictionary")),
        ("generate=8", ("generate = 8", "Generate")),
        ("run_dir=", ("run_dir = ''", "at least 1 character")),
        ("problems.path=", ("problems.path = ''", "at least 1 character")),
        ("seed=true", ("seed = True", "integer")),
        ("cache.k=65", ("cache.k = 65", "less than or equal to 64")),
        ("cache={ k = 8 }", ('k = 8 means nothing where source = "generation"', 'set source = "transformers"')),
        ('cache={ source = "vllm", temperatures = [2] }', ("temperatures = [2.0] means nothing", "remove it")),
        ('cache={ source = "transformers", engine = { x = 1 } }', ("engine = {'x': 1} means", 'set source = "vllm"')),
        ('cache={ source = "transformers", temperatures = [1.0] }', ("temperatures = [1.0]", "without 1")),
        ('cache={ source = "transformers", temperatures = [2, 2] }', ("temperatures = [2.0, 2.0]", "once")),
        ('cache={ source = "vllm", engine = { logprobs_mode = "raw_logits" } }', ("only raw_logprobs",)),
        ('cache={ source = "vllm", engine = { dtype = "half" } }', ("set cache.dtype instead",)),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_its_limit(
    tmp_path: Path, override: str, words: tuple[str, ...]
) -> None:
    message = refusal(tmp_path, override)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ("generate.keep_distributions=true", 'cache.source="vllm"'),
            'generate.keep_distributions and cache.source = "vllm": the distributions would be taken twice; set one',
        ),
        (
            ('train.kl={ mode = "exact", temperature = 2.0 }',),
            'train.kl.mode = "exact" at temperatures [2.0], and the mass outside of what is kept is known at [1.0]',
        ),
        (
            ('train.kl={ mode = "exact", temperature = { kind = "linear", start = 2.0, end = 1.0 } }',),
            'train.kl.mode = "exact" at temperatures of a range',
        ),
        (
            ('train.qat.scheme="int8_weights"', "quantize={}"),
            'train.qat.scheme = "int8_weights" and quantize.scheme = "int8": the student would be trained for another '
            "rounding than it gets; set both to the same",
        ),
        (
            ('train.qat.scheme="int8_weights"',),
            "[train.qat] without [quantize]: the student would be trained for 8 bits and none would be made; add [quantize] "
            '(quantize.scheme = "int8_weights"), or take [train.qat] out',
        ),
    ],
)
def test_sections_that_contradict_each_other_are_refused(
    tmp_path: Path, overrides: tuple[str, ...], words: str
) -> None:
    message = refusal(tmp_path, *overrides)
    assert message.removeprefix(f"{tmp_path / 'recipe.toml'}: ").startswith(words)


def test_mode_exact_is_taken_where_the_cache_has_its_temperatures(tmp_path: Path) -> None:
    stages = '{ mode = "exact", temperature = { kind = "staged", values = [5, 2, 1], at = [0, 0.4, 0.8] } }'
    overrides = ['cache={ source = "transformers", temperatures = [2, 5] }', f"train.kl={stages}"]
    recipe = load_recipe(recipe_file(tmp_path), overrides)
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump()))) == recipe


def test_every_wrong_key_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "generate.samples=0", "train.lenght=3")
    assert "generate.samples = 0" in message
    assert "unknown key train.lenght" in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text('[train.kl.alpha]\nkind = "linear"\n[cache]\nk = 8\n')
    with pytest.raises(UserError, match=r"run_dir is missing; it has no default"):
        load_recipe(path)


def test_a_recipe_has_only_what_its_stages_need(tmp_path: Path) -> None:
    path = tmp_path / "eval.toml"
    path.write_text('run_dir = "x"\n[eval]\ntasks = ["quickstart"]\nmodels = ["org/model"]\n')
    recipe = load_recipe(path)
    refuse_missing(recipe, "eval")
    with pytest.raises(UserError, match=r"^problems\.path and teacher\.model are missing, and generate needs them$"):
        refuse_missing(recipe, "generate", "problems.path", "teacher.model")
    for empty in ('problems.path=""', 'teacher.model=""', 'train.student=""'):
        with pytest.raises(UserError, match=f"{empty.partition('=')[0]} = ''"):
            load_recipe(path, [empty])


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("a.b=3", 3),
        ("a.b=1e-5", 1e-5),
        ("a.b=true", True),
        ("a.b=no", "no"),
        ("a.b='3'", "3"),
        ("a.b=Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("a.b=x=y", "x=y"),
        ("a.b=", ""),
        ('a.b=["x", "y"]', ["x", "y"]),
        ("a.b={ kind = 'default', theta = 3e5 }", {"kind": "default", "theta": 3e5}),
        ("a.b=2026-01-31", "2026-01-31"),
        (" a . b =3", 3),
    ],
)
def test_an_override_is_toml_and_a_bare_string_where_it_is_not(override: str, value: Any) -> None:
    data: dict[str, Any] = {"a": {"b": 0, "c": 1}}
    apply_override(data, override)
    assert data == {"a": {"b": value, "c": 1}}
    assert type(data["a"]["b"]) is type(value)


def test_an_override_makes_the_tables_that_are_not_there() -> None:
    data: dict[str, Any] = {}
    apply_override(data, "train.args.learning_rate=1e-4")
    assert data == {"train": {"args": {"learning_rate": 1e-4}}}


@pytest.mark.parametrize("override", ["generate.samples", "=3", "", "--samples", "a..b=1", "a.=1"])
def test_an_override_of_another_form_is_refused(tmp_path: Path, override: str) -> None:
    assert "section.key=value" in refusal(tmp_path, override)


def test_an_override_below_a_value_is_refused(tmp_path: Path) -> None:
    assert "run_dir is not a table" in refusal(tmp_path, "run_dir.x=1")


@given(st.one_of(st.integers(-(2**60), 2**60), st.booleans(), st.lists(st.integers(0, 99)), st.floats(allow_nan=False)))
def test_an_override_keeps_the_type_of_what_was_written(value: Any) -> None:
    data: dict[str, Any] = {}
    apply_override(data, f"x={json.dumps(value).replace('Infinity', 'inf')}")
    assert data == {"x": value}
    assert type(data["x"]) is type(value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"run_dir = ", "not valid TOML"),
        (b"[train\n", "not valid TOML"),
        (b"# gr\xfc\xdfe\n", "not UTF-8"),
        (b"", "run_dir is missing"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        load_recipe(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert words in str(refused.value)


def test_a_recipe_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    for name in ("nowhere.toml", str(tmp_path)):
        with pytest.raises(UserError, match=r"no such recipe: .*one of: .*quickstart"):
            find_recipe(name)


def test_a_misspelt_recipe_is_compared_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such recipe: quickstrat; did you mean quickstart\?; give the path of"):
        find_recipe("quickstrat")


def test_a_recipe_cannot_be_changed_after_it_was_read(tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file(tmp_path), ["generate.samples=3"])
    assert recipe.generate.samples == 3
    with pytest.raises(ValueError, match="frozen"):
        recipe.generate.samples = 4


def test_a_recipe_survives_its_json(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(settings(tmp_path, train={"args": {"learning_rate": 1e-5, "bf16": True}}))
    write_json(tmp_path / "recipe.json", recipe.model_dump())
    assert Recipe.model_validate(read_json(tmp_path / "recipe.json")) == recipe


def variant(folder: Path, text: str) -> Path:
    path = folder / "variant.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_that_extends_another_has_its_tables_with_its_own_over_them(tmp_path: Path) -> None:
    base = recipe_file(tmp_path, generate={"samples": 3, "temperature": 0.5})
    with base.open("a") as file:
        file.write("[train.args]\nlearning_rate = 1e-5\nbf16 = true\n")
        file.write('[train.kl]\nmode = "tail"\nalpha = { kind = "linear", start = 0.9, end = 0.3 }\n')
    path = variant(
        tmp_path,
        'base = "recipe.toml"\nrun_dir = "other"\n[generate]\nsamples = 5\n[train.args]\nlearning_rate = 1e-3\n'
        '[train.kl]\nalpha = { kind = "staged", values = [0.0, 0.5], at = [0.0, 0.5] }\n',
    )
    found, below = load_recipe(path, ["generate.top_p=0.8"]), load_recipe(base)
    assert found.run_dir == "other"
    assert (found.generate.samples, found.generate.temperature, found.generate.top_p) == (5, 0.5, 0.8)
    assert found.train.args == {"learning_rate": 1e-3, "bf16": True}
    assert found.train.kl is not None
    assert found.train.kl.mode == "tail"
    assert found.train.kl.alpha == Schedule(kind="staged", values=[0.0, 0.5], at=[0.0, 0.5])  # no start of the other
    assert found.problems == below.problems
    assert "base" not in found.model_dump()


def test_false_takes_out_what_the_base_has(tmp_path: Path) -> None:
    """Where a key is absent by default: TOML has no null. Elsewhere it is a truth value, or an error."""
    recipe_file(tmp_path, train={"student": "s", "peft": {"r": 8}, "kl": {"online": "t"}, "merge_adapter": True})
    (tmp_path / "own.toml").write_text('base = "recipe.toml"\n[train]\npeft = false\nmerge_adapter = false\n')
    found = load_recipe(tmp_path / "own.toml", [])
    assert (found.train.peft, found.train.merge_adapter) == (None, False)
    assert found.train.kl is not None
    assert load_recipe(tmp_path / "own.toml", ["train.kl=false"]).train.kl is None
    assert load_recipe(tmp_path / "recipe.toml", ["train.kl.online=false"]).train.kl == Kl()
    with pytest.raises(UserError, match=r"train\.student = False"):
        load_recipe(tmp_path / "recipe.toml", ["train.student=false"])


def test_a_recipe_can_extend_one_that_extends_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    variant(tmp_path, 'base = "quickstart"\n[generate]\nsamples = 7\n')
    last = tmp_path / "last.toml"
    last.write_text('base = "variant.toml"\n[problems]\nlimit = 9\n')
    found, shipped = load_recipe(last), load_recipe(find_recipe("quickstart"))
    assert (found.generate.samples, found.problems.limit) == (7, 9)
    assert found.train == shipped.train


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('base = "nowhere"', "base = 'nowhere': no such recipe: nowhere; .*quickstart"),
        ('base = "variant.toml"', "extend each other: variant.toml → variant.toml"),
        ('base = "between.toml"', "extend each other: variant.toml → between.toml → variant.toml"),
        ("base = 3", "base = 3: the path or name"),
        ('base = "quickstart"\n[generate]\ntemprature = 1', "variant.toml: unknown key generate.temprature"),
    ],
)
def test_a_base_that_cannot_be_extended_is_refused_with_the_reason(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "between.toml").write_text('base = "variant.toml"')
    with pytest.raises(UserError, match=words):
        load_recipe(variant(tmp_path, text))


@pytest.mark.parametrize("path", SHIPPED_RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_found_by_name_from_anywhere_and_its_plan_is_shown(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe(path.stem) == path
    assert find_recipe(f"scripts/recipes/{path.name}") == path
    recipe = load_recipe(path, [f"run_dir={tmp_path / 'run'}"])
    show_plan(Run(recipe), path)
    plan = capsys.readouterr().out
    for stage in ("generate", "verify", "filter", "cache", "train", "eval"):
        assert f"\n{stage}  [{'to do' if stage in names_of_run(recipe) else 'not needed: '}" in plan
    assert recipe.teacher.model in plan
    assert recipe.train.student in plan
    assert all(task in plan for task in recipe.eval.tasks)
    assert os.listdir(tmp_path) == []  # a dry run writes nothing


def test_every_key_is_in_the_reference_with_what_it_means() -> None:
    rows = {line.split("|")[1].strip(" `"): line.split(" | ") for line in reference().splitlines()}
    schedules = ("train.kl.alpha", "train.kl.temperature")  # what is in them stands once, under "a schedule"
    for key in (*all_keys(Recipe), *schedules, *Schedule.model_fields):
        if key not in ("problems", "teacher", "train") and not key.startswith(tuple(f"{each}." for each in schedules)):
            assert len(rows[key][-1]) > 10, key


def test_every_shipped_task_loads() -> None:
    names = shipped_names("eval", ".toml")
    assert "quickstart" in names
    for name in names:
        assert load_task(name).name == name
        assert "{problem}" in asking_of(load_task(name)).prompt.text


def test_a_wrong_key_of_a_task_is_compared_with_those_of_tasks(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "m"\ntitel = "M"\nlicense = ""\nsamples = 1\n[data]\npath = "x"\nsplitt = "y"\n')
    with pytest.raises(UserError) as refused:
        load_task(str(path))
    assert "unknown key titel; did you mean title?" in str(refused.value)
    assert "unknown key data.splitt; did you mean data.split?" in str(refused.value)
    with pytest.raises(UserError, match=r"no such task: nothing; .*quickstart"):
        load_task("nothing")


def test_a_file_that_is_no_text_is_named_with_what_it_is_for(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, reason in (("binary", "not UTF-8"), (".", "Is a directory")):
        with pytest.raises(UserError, match=rf"prompt: .*{reason}"):
            read_file(str(tmp_path / name), "prompt")
    with pytest.raises(UserError, match="prompt: no such file: nowhere"):
        find_file("nowhere", "prompt")


def test_the_users_own_file_comes_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_file("prompts/math.txt", "prompt") == ROOT / "prompts" / "math.txt"
    own = tmp_path / "prompts" / "math.txt"
    own.parent.mkdir()
    own.write_text("{problem}")
    assert find_file("prompts/math.txt", "prompt") == own
    assert small_run(tmp_path).recipe.generate.prompt == "prompts/math.txt"
