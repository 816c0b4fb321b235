"""Files of objectives import each other in one direction, and for types too."""

import ast
import graphlib
import pathlib

import mmcontrast.objectives

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
  """What objectives import of the package: their own files, errors, schedules, and what an encoded view is."""
  allowed = {
    "mmcontrast.errors",
    "mmcontrast.registry",
    "mmcontrast.optimization.schedules",
    "mmcontrast.encoders.encoded",
  }
  for file in FOLDER.glob("*.py"):
    for node in ast.walk(ast.parse(file.read_text())):
      if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmcontrast"):
        assert node.module.startswith("mmcontrast.objectives") or node.module in allowed, (file.name, node.module)
