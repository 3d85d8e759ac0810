"""Teachers in the training: their tokenizers, and how much they read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_model

from r1distill.errors import UserError
from r1distill.inner_sections import Attention, Hidden
from r1distill.train.loading import load_aligner, load_online_teacher
from r1distill.train.render import prepare_tokenizer
from r1distill.train_sections import Kl, Train


@pytest.fixture
def tokenizer() -> Any:
    found = tiny_model.make_tokenizer()
    prepare_tokenizer(found, None, None, None)
    return found


@pytest.fixture
def teacher(tmp_path: Path, tiny_teacher: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(tiny_teacher, tmp_path / "teacher"))


def changed(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def add_token(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["another"] = max([*vocabulary.values(), *(each["id"] for each in tokenizer["added_tokens"])]) + 1
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize("section", ["kl", "hidden", "attention"])
def test_a_teacher_that_reads_less_than_the_student_is_refused(teacher: Path, tokenizer, section: str) -> None:
    sections: dict[str, Any] = {"kl": Kl(online=str(teacher))}
    if section != "kl":
        sections = {section: {"hidden": Hidden, "attention": Attention}[section](teacher=str(teacher))}
    changed(teacher, "config.json", max_position_embeddings=100)
    with pytest.raises(UserError, match=r"has 100 positions, and train.max_length = 101; lower that"):
        load_online_teacher(Train(student="s", max_length=101, **sections), tokenizer)
    load_online_teacher(Train(student="s", max_length=100, **sections), tokenizer)


def test_another_vocabulary_is_refused_with_a_remedy_that_is_one(teacher: Path, tokenizer) -> None:
    add_token(teacher)
    for settings, section, crosses in (
        ({"kl": Kl(online=str(teacher))}, "train.kl", True),
        ({"hidden": Hidden(teacher=str(teacher))}, "train.hidden", False),
        ({"attention": Attention(teacher=str(teacher))}, "train.attention", False),
    ):
        with pytest.raises(
            UserError, match=rf"\[{section}\]: the vocabulary of the student s is not that of"
        ) as refused:
            load_online_teacher(Train(student="s", max_length=64, **settings), tokenizer)  # type: ignore[arg-type]
        assert ("cross_tokenizer" in str(refused.value)) == crosses


def test_a_teacher_across_tokenizers_needs_no_padding_token_and_ends_as_its_template_does(
    teacher: Path, tokenizer
) -> None:
    """As Qwen's base models, whose end token is another than that of a turn."""
    kl = Kl(online=str(teacher), cross_tokenizer="aligned")
    settings = Train(student="s", max_length=64, kl=kl)
    expected = load_aligner(settings, tokenizer)
    assert expected is not None
    turn_end = expected.teacher_tokenizer.eos_token
    other = next(token for token in expected.teacher_tokenizer.get_vocab() if token != turn_end)
    changed(teacher, "tokenizer_config.json", eos_token=other, pad_token=other)
    changed(teacher, "config.json", max_position_embeddings=99)
    found = load_aligner(settings, tokenizer)
    assert found is not None
    assert found.teacher_tokenizer.eos_token == turn_end
    assert found.teacher_tokenizer.pad_token_id not in (None, found.teacher_tokenizer.eos_token_id)
    assert (found.ends, found.teacher_positions) == (expected.ends, 99)


def test_a_teacher_that_cannot_be_asked_is_refused(teacher: Path, tokenizer) -> None:
    (teacher / "chat_template.jinja").unlink(missing_ok=True)
    configuration = json.loads((teacher / "tokenizer_config.json").read_text())
    configuration.pop("chat_template", None)
    (teacher / "tokenizer_config.json").write_text(json.dumps(configuration))
    settings = Train(student="s", kl=Kl(online=str(teacher), cross_tokenizer="aligned"))
    with pytest.raises(UserError, match="no chat template, so that it cannot be asked the problem; take the instruct"):
        load_aligner(settings, tokenizer)
