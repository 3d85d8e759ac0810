"""Who is scored: roles, folders, Hub ids, servers and adapters, and that what was scored before is told from what is new."""

from pathlib import Path

import pytest
from small_run import small_run

from r1distill.errors import UserError
from r1distill.evaluate.contestants import check_contestants, contestants_of
from r1distill.generate.server import ServerBackend
from r1distill.models import fingerprint
from r1distill.run import Run
from r1distill.store import write_json


def run_of(folder: Path, *models: str, **candidates: object) -> Run:
    evaluation = {"tasks": ["quickstart"], "models": list(models), "candidates": candidates}
    return small_run(folder, eval=evaluation, train={"student": "org/base", "revision": "abc"})


def model_folder(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_roles_folders_hub_ids_and_candidates_have_names_and_versions(tmp_path: Path) -> None:
    folder = str(model_folder(tmp_path / "mine"))
    served = {"model": "big", "urls": ["http://127.0.0.1:9/v1"]}
    run = run_of(tmp_path, "base", "teacher", "student", folder, "org/Other-7B", "r1", r1=served)
    write_json(run.record_path("train"), {"finished_at": "now"})
    found = {each.name: each for each in contestants_of(run)}
    assert list(found) == ["base", "teacher", "student", "mine", "Other-7B", "r1"]
    assert (found["base"].model, found["base"].version) == ("org/base", "abc")
    assert (found["student"].model, found["student"].version) == (str(run.student), "now")
    assert found["mine"].version == fingerprint(str(folder))
    assert (found["Other-7B"].model, found["Other-7B"].version) == ("org/Other-7B", "")
    assert isinstance(found["r1"].open(), ServerBackend)


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"org/x and other/x would both be x; .*\[eval\.candidates\]"):
        contestants_of(run_of(tmp_path, "org/x", "other/x"))


def test_an_adapter_is_a_model_of_its_own_and_each_training_of_it_too(tmp_path: Path) -> None:
    base, adapter = model_folder(tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    run = run_of(tmp_path, "mine", mine={"model": str(base), "adapter": str(adapter)})
    with pytest.raises(UserError, match=r"eval\.candidates\.mine\.adapter = .*: no adapter_config\.json"):
        check_contestants(run.recipe)
    write_json(adapter / "adapter_config.json", {"r": 8})
    (adapter / "adapter_model.safetensors").write_bytes(b"1" * 100)
    check_contestants(run.recipe)
    [first] = contestants_of(run)
    assert first.model == f"{base} + {adapter}"
    (adapter / "adapter_model.safetensors").write_bytes(b"2" * 100)
    [second] = contestants_of(run)
    assert (second.model, second.version != first.version) == (first.model, True)


@pytest.mark.parametrize(
    "place",
    [slice(0, 1), slice((9 << 20) - 1, 9 << 20), slice(4 << 20, 5 << 20)],
    ids=["the first byte", "the last byte", "a tensor in the middle"],
)
def test_the_fingerprint_sees_other_weights_and_no_other_place(tmp_path: Path, place: slice) -> None:
    weights = bytearray(9 << 20)
    first = fingerprint(str(model_folder(tmp_path / "a", bytes(weights))))
    assert fingerprint(str(model_folder(tmp_path / "b", bytes(weights)))) == first
    weights[place] = b"1" * (place.stop - place.start)
    assert fingerprint(str(model_folder(tmp_path / "b", bytes(weights)))) != first


def test_a_model_that_is_not_there_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for entry in (str(tmp_path / "empty"), str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match=r"eval\.models = .*(empty|nowhere)"):
            check_contestants(run_of(tmp_path, entry).recipe)
