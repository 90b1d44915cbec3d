from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import ValidationError

from training.models.msdnet.shape import Stem
from training.recipe import CosineSchedule, Recipe, StepSchedule, load_recipe

BUNDLED = sorted(
    entry.name.removesuffix(".toml") for entry in (files("training") / "recipes").iterdir()
)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_recipe_loads_and_makes_a_network(name: str):
    recipe = load_recipe(name)

    shape = recipe.network.shape(1000)

    assert shape.num_layers == recipe.network.exit_layers[-1]
    assert recipe.data.holdout_images == 5000


def test_bundled_recipes_have_names_of_their_own():
    names = [load_recipe(name).name for name in BUNDLED]

    assert len(set(names)) == len(names) == 9


def test_a_recipe_is_read_from_any_path(tmp_path: Path):
    text = (files("training") / "recipes" / "cifar10_paper.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("cifar10-msdnet-paper", "mine"), encoding="utf-8")

    recipe = load_recipe(str(path))

    assert recipe.name == "mine"
    assert recipe.network.stem is Stem.CIFAR
    assert recipe.schedule == StepSchedule(kind="steps", drops_at=(0.5, 0.75), factor=0.1)
    assert recipe.muon is None


def test_an_unknown_recipe_is_refused_naming_those_there_are():
    with pytest.raises(FileNotFoundError, match=r"no recipe 'cifar11'.*cifar100_7exits"):
        load_recipe("cifar11")


def test_a_misspelt_key_is_refused(tiny_recipe: Recipe):
    content = tiny_recipe.model_dump(mode="json")
    content["network"]["seed_unit"] = 16

    with pytest.raises(ValidationError, match="seed_unit"):
        Recipe.model_validate(content)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"minutes": 3.0}, "either epochs or minutes", id="both-extents"),
        pytest.param({"epochs": None}, "either epochs or minutes", id="no-extent"),
        pytest.param({"exit_weights": [1.0]}, "1 exit weights for 2 exits", id="few-weights"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(
    tiny_recipe: Recipe, change: dict[str, object], complaint: str
):
    content = tiny_recipe.model_dump(mode="json") | change

    with pytest.raises(ValidationError, match=complaint):
        Recipe.model_validate(content)


def test_a_recipe_survives_the_checkpoint_it_is_kept_in(tiny_recipe: Recipe):
    assert Recipe.model_validate(tiny_recipe.model_dump(mode="json")) == tiny_recipe
    assert isinstance(tiny_recipe.schedule, CosineSchedule)
