"""What a run of a recipe can be used for afterwards."""

import pytest

from mmcontrast.config import config_files, load_config

RECIPES = [name for name in config_files.shipped() if name.startswith("recipes/")]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_of_images_and_texts_names_the_heads_that_are_evaluated_searched_and_exported(name):
  config = load_config(name)
  for kind in ("image", "text"):
    if {"image", "text"} <= set(config["towers"]):
      head = config["evaluation"][kind]
      assert config["heads"][head]["tower"] == kind
