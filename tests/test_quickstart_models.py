"""The embedded models, converted for real."""

from pathlib import Path

import pytest

from r1distill import quickstart
from r1distill.errors import UserError
from r1distill.models import check_model_name, resolve_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R1DISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        converted = {name: Path(resolve_model(name, "train.student")) for name in quickstart.NAMES}
        before = {name: folder.stat().st_mtime_ns for name, folder in converted.items()}
        again = {name: quickstart.embedded_model(name) for name in quickstart.NAMES}
        assert again == converted
        assert {name: folder.stat().st_mtime_ns for name, folder in again.items()} == before
        # nothing half made is left in the cache
        assert {path.name for path in quickstart.cache_folder().iterdir()} == {
            ".lock",
            *(f.name for f in converted.values()),
        }
    return converted


@pytest.mark.slow
def test_both_end_a_turn_with_one_token_and_pad_with_another(models: dict[str, Path]) -> None:
    from transformers import AutoConfig, AutoTokenizer

    for folder in models.values():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
        assert AutoConfig.from_pretrained(folder).pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
        chat = tokenizer.apply_chat_template([{"role": "user", "content": "1 + 1?"}], tokenize=False)
        assert chat == "<|im_start|>user\n1 + 1?<|im_end|>\n"  # no system message slips in


@pytest.mark.slow
def test_the_teacher_is_the_student_with_the_adapter_merged_in(models: dict[str, Path]) -> None:
    from safetensors.torch import load_file

    student, teacher = (load_file(models[name] / "model.safetensors") for name in quickstart.NAMES)
    assert student.keys() == teacher.keys()
    changed = {name for name in student if not student[name].equal(teacher[name])}
    assert changed
    assert all("_proj." in name for name in changed)


def test_an_unknown_embedded_model_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UserError, match=r"quickstart:pupil; there are quickstart:student and quickstart:teacher"):
        quickstart.embedded_model("quickstart:pupil")


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "/nowhere/model", "a/b/c"])
def test_a_model_that_is_nowhere_is_refused_without_asking_the_hub(name: str) -> None:
    with pytest.raises(UserError, match=r"teacher.model = .*no such folder"):
        check_model_name(name, "teacher.model")
