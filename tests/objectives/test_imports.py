"""Files of objectives import each other in one direction, and for types too."""

import ast
import graphlib
import pathlib

import mmcontrast.objectives
from mmcontrast.objectives.criteria import CRITERIA
from mmcontrast.objectives.module_term import MODULES, ModuleTerm
from mmcontrast.objectives.pairwise import Pairwise
from mmcontrast.objectives.regularizers import REGULARIZERS, Regularizer
from mmcontrast.objectives.scores import SCORES
from mmcontrast.objectives.targets import TARGETS

FOLDER = pathlib.Path(mmcontrast.objectives.__file__).parent


def imported(file: pathlib.Path) -> set[str]:
  """The files of the room that a file imports, wherever in it that stands."""
  nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
  modules = [node.module for node in nodes if (node.module or "").startswith("mmcontrast.objectives.")]
  names = [alias.name for node in nodes if node.module == "mmcontrast.objectives" for alias in node.names]
  return {module.rpartition(".")[2] for module in modules} | set(names)


def test_there_is_no_circle():
  graph = {file.stem: imported(file) for file in FOLDER.glob("*.py")}
  assert len(graph["terms"]) > 3
  order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle
  assert order.index("term") < order.index("pairwise") < order.index("terms")


def test_the_room_stands_on_encoders_types_alone():
  """What objectives import of the package: their own files, errors, schedules, what an encoded view is, and of which
  modality."""
  allowed = {
    "mmcontrast.errors",
    "mmcontrast.registry",
    "mmcontrast.optimization.schedules",
    "mmcontrast.encoders.encoded",
    # A term with a transformer of its own takes the layers of the towers.
    "mmcontrast.encoders.layer_norm",
    "mmcontrast.encoders.transformer",
    "mmcontrast.encoders.tubelet_vit",  # how a video is cut into what is hidden
    "mmcontrast.encoders.video_prompts",
    "mmcontrast.modalities.boxes",  # where a view's regions are in it
    "mmcontrast.modalities",  # which modality a set of views is of, and what is known of a view
  }
  for file in FOLDER.glob("*.py"):
    for node in ast.walk(ast.parse(file.read_text())):
      if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmcontrast"):
        assert node.module.startswith("mmcontrast.objectives") or node.module in allowed, (file.name, node.module)


def recognised(tree: ast.AST) -> set[str]:
  """The classes that isinstance and issubclass are asked about, and that a type is compared with."""
  calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
  asked = [call.args[1] for call in calls if call.func.id in ("isinstance", "issubclass")]
  for node in ast.walk(tree):
    if isinstance(node, ast.Compare) and any(isinstance(part, ast.Call) and getattr(part.func, "id", "") == "type"
                                             for part in (node.left, *node.comparators)):  # fmt: skip
      asked.append(node)
  parts = [part for node in asked for part in ast.walk(node)]
  return {part.id for part in parts if isinstance(part, ast.Name)} | {
    part.attr for part in parts if isinstance(part, ast.Attribute)
  }


def test_nobody_asks_of_what_kind_a_term_or_a_part_of_one_is():
  """They say what they need, so that a new kind is a class and a line in its registry."""
  registries = (SCORES, TARGETS, CRITERIA, REGULARIZERS, MODULES)
  kinds = {kind for registry in registries for kind in registry.values()} | {Pairwise, Regularizer, ModuleTerm}
  names = {base.__name__ for kind in kinds for base in kind.__mro__ if base.__module__.startswith("mmcontrast")}
  assert {"Term", "Softmax", "Compositional", "Teacher", "TokenMax", "Swav"} <= names
  package = FOLDER.parent
  for file in package.rglob("*.py"):
    tree = ast.parse(file.read_text())
    imported_names = {
      alias.asname or alias.name
      for node in ast.walk(tree)
      if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmcontrast.objectives")
      for alias in node.names
    }
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)} if file.parent == FOLDER else set()
    assert not recognised(tree) & names & (imported_names | own), file


def test_the_search_for_such_questions_finds_them():
  assert recognised(ast.parse("isinstance(term.target, (Teacher, targets.Mixed))")) == {"Teacher", "targets", "Mixed"}
  assert "Softmax" in recognised(ast.parse("type(criterion) is Softmax"))
