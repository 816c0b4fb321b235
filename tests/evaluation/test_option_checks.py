"""Options that no evaluator can use stop before a set is read, in one line that names the key and what to give."""

import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation import option_checks
from mmcontrast.evaluation.suite import EVALUATORS, check, options_of


@pytest.mark.parametrize(
  ("evaluator", "options", "message"),
  [
    ("knn", {"k": 0}, r"knn.k: 0; give 1 or more"),
    ("knn", {"k": "a"}, r"knn.k: 'a' is not a whole number; the default is 20"),
    ("knn", {"temperature": 0}, r"knn.temperature: 0; give a number above 0"),
    ("knn", {"test_splits": ("tset",)}, r"knn.test_splits: no such choice 'tset'; did you mean 'test'"),
    ("knn", {"test_splits": ()}, r"knn.test_splits: is empty; name one at least, or leave the option out"),
    ("zero_shot", {"templates": ()}, r"zero_shot.templates: is empty; name one"),
    ("zero_shot", {"templates": "a {}"}, r"zero_shot.templates: 'a \{\}' is a text; give a list of them"),
    ("zero_shot", {"templates": ("a photo",)}, r"zero_shot.templates: 'a photo' must hold '\{\}' once"),
    ("zero_shot", {"templates": (3,)}, r"zero_shot.templates: 3 must hold"),
    ("tags_by_text", {"templates": ("{} and {}",)}, r"must hold '\{\}' once, for the name of the class"),
    ("base_to_new", {"template": "a photo"}, r"base_to_new.template: 'a photo' must hold"),
    ("robustness", {"strengths": ()}, r"robustness.strengths: is empty"),
    ("robustness", {"corruptions": []}, r"robustness.corruptions: is empty"),
    ("properties", {"changes": ()}, r"properties.changes: is empty"),
    ("entity_linking", {"mention": ()}, r"entity_linking.mention: is empty"),
    ("modality_gap", {"most": -3}, r"modality_gap.most: -3; give 1 or more"),
    ("text_transfer", {"std": -0.5}, r"text_transfer.std: -0.5; give 0 or more"),
    ("text_transfer", {"std": "x"}, r"text_transfer.std: 'x' is not a number; the default is 0.08"),
    ("text_transfer", {"learning_rate": 0.0}, r"text_transfer.learning_rate: 0; give a number above 0"),
    ("captioning", {"beams": 0}, r"captioning.beams: 0; give 1 or more"),
    ("retrieval", "x", r"retrieval: 'x' is no table of options; give one, or \{\} for the usual"),
  ],
)
def test_what_no_evaluator_can_use(evaluator, options, message):
  with pytest.raises(UserError, match=message) as error:
    check({"sets": ("s",), "evaluators": {evaluator: options}})
  assert str(error.value).startswith(f"evaluation.evaluators.{evaluator}") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", EVALUATORS)
def test_the_usual_options_are_allowed(name):
  usual = {key: value for key, value in options_of(name).items() if key not in ("sets", "baselines")}
  option_checks.check(usual, name)
