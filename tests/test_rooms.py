"""The house: what each floor of the package may import. Nothing imports upward, and no files import in a circle."""

import ast
import collections
import graphlib
import pathlib

import mmcontrast

PACKAGE = pathlib.Path(mmcontrast.__file__).parent
# From the ground up; rooms of a floor may not import each other.
FLOORS = (
  ("errors",),
  ("object_stores",),
  ("folders", "called", "parameter_paths", "registry"),
  ("data below the modalities",),
  ("modalities",),
  ("data",),
  ("encoders",),
  ("optimization",),
  ("objectives",),
  ("stores",),
  ("models",),
  ("parallel",),
  ("evaluation",),
  ("config",),
  ("runs",),
  ("inference",),
  ("report",),
  ("interop",),
  ("training",),
  ("cost",),
  ("bulk",),
  ("embed",),
  ("evaluate",),
  ("align", "benchmark", "caption", "curate", "index", "layers", "retrieve", "search", "segment"),
  ("demo", "match", "run_report"),
  ("train",),
  ("configs",),
  ("__init__",),
  ("command_line",),
  ("adaptation_commands", "data_commands", "embedding_commands", "looking_commands"),
  ("cli",),
  ("__main__",),
)
# What modalities are made of; sources, the pipeline and evaluation sets ask them.
LOW = (
  *("data.attempts", "data.captions", "data.checks", "data.cut_captions", "data.filters", "data.image_parts"),
  *("data.image_views", "data.images", "data.noise", "data.record", "data.tokenizers", "data.torn_samples"),
  *("data.left_behind", "data.meshes", "data.native", "data.regions", "data.relations", "data.transforms"),
  "data.typos",
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, pathlib.Path]:
  names = {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}
  return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imported(file: pathlib.Path, known: dict[str, pathlib.Path], lazily: bool) -> set[str]:
  """The modules of the package that a file imports; with `lazily`, inside functions too."""
  tree = ast.parse(file.read_text())
  nodes = ast.walk(tree) if lazily else tree.body
  found = set()
  for node in nodes:
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmcontrast."):
      module = node.module.removeprefix("mmcontrast.")
      found |= {f"{module}.{alias.name}" if f"{module}.{alias.name}" in known else module for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module == "mmcontrast":
      found |= {alias.name for alias in node.names if alias.name in known}
    elif isinstance(node, ast.Import):
      names = [alias.name.removeprefix("mmcontrast.") for alias in node.names if alias.name.startswith("mmcontrast.")]
      found |= set(names)
  return found


def room(module: str) -> str:
  low = any(module == name or module.startswith(f"{name}.") for name in LOW)
  return "data below the modalities" if low else module.partition(".")[0]


def test_every_room_has_its_floor():
  assert {room(module) for module in modules()} == set(HEIGHT)


def test_nothing_imports_upward():
  known = modules()
  upward = {
    (module, other)
    for module, file in known.items()
    if module != "__init__"  # the public names, each imported at first use
    for other in imported(file, known, lazily=True)
    if room(other) != room(module) and HEIGHT[room(other)] >= HEIGHT[room(module)]
  }
  assert not upward


def test_no_files_import_in_a_circle():
  known = modules()
  graph = {module: imported(file, known, lazily=False) - {module} for module, file in known.items()}
  assert len(graph["train"]) > 10
  list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


def test_no_two_files_of_tests_have_one_name():
  """Without packages pytest imports a file by its name alone."""
  names = collections.Counter(
    file.name for file in pathlib.Path(__file__).parent.rglob("test_*.py") if file.parent.name not in ("oracles", "tpu")
  )
  assert [name for name, count in names.items() if count > 1] == []
