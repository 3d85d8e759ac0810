"""The README says what is."""

from recipe_reference import README, with_reference

from r1distill.recipe import RECIPES
from r1distill.resources import shipped_names


def test_the_recipe_reference_is_that_of_the_models() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_reference(text) == text, "run scripts/recipe_reference.py --write"


def test_every_shipped_recipe_is_in_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    for name in shipped_names(RECIPES, ".toml"):
        assert name == "quickstart" or f"`{name}`" in text
