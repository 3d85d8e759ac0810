"""Fixtures that several tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.browser import MISSING, Browser, installed, opened
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks a model hub
settings.register_profile("r1distill", deadline=None)  # of an example: the machine has other work too
settings.load_profile("r1distill")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--extended", action="store_true", help="also the checks that take minutes, as .ci/run does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --extended leave those out. Files with slow tests first: no process is left with the longest file at the end."""
    if not config.getoption("--extended"):
        left_out = [item for item in items if item.get_closest_marker("extended")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("extended")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows nothing."""
    import tiny_model

    tokenizer = tiny_model.make_tokenizer()
    return tiny_model.save(tiny_model.make_model(tokenizer), tokenizer, tmp_path_factory.mktemp("tiny") / "student")


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, which has learned eight sums by heart."""
    import tiny_model

    tokenizer = tiny_model.make_tokenizer()
    model = tiny_model.make_model(tokenizer)
    assert tiny_model.learn_by_heart(model, tokenizer) < 0.05
    return tiny_model.save(model, tokenizer, tmp_path_factory.mktemp("tiny") / "teacher")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not installed():
        pytest.skip(MISSING)
    with opened(tmp_path_factory.mktemp("downloads")) as session:
        yield session


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """A headless Chromium on an empty page."""
    chromium.forget()
    return chromium
