"""Config files: which one is meant, those that come with the package, and how one is run.

A config file is Python and may import files of its folder. Two folders that both have a `parts.py` do
not share it, a module of that name that was imported before is not taken for it, and an edit is seen at the next load.
Everything else that a file imports is found as ever, the configs of the package among it:
`from mmcontrast.configs.methods import clip`.
"""

from __future__ import annotations

import ast
import builtins
import collections
import difflib
import functools
import hashlib
import importlib.machinery
import importlib.util
import inspect
import pathlib
import sys
import traceback
import types
from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError, nearest, one_line

SHIPPED = pathlib.Path(__file__).parents[1] / "configs"
"""The folder of the configs that come with the package."""


@functools.cache
def shipped() -> Mapping[str, str]:
  """The configs of the package: name, such as "methods/clip" -> the first line of its docstring."""
  found = {}
  for file in sorted(SHIPPED.rglob("*.py"), key=lambda file: (len(file.parts), file)):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if any(isinstance(node, ast.FunctionDef) and node.name == "get_config" for node in tree.body):
      name = file.relative_to(SHIPPED).with_suffix("").as_posix()
      found[name] = (ast.get_docstring(tree) or "").partition("\n")[0]
  return types.MappingProxyType(found)


def split(path: str) -> tuple[pathlib.Path, str | None]:
  """The file and the argument that "FILE.py", "FILE.py:ARG", "NAME" or "NAME:ARG" mean.

  NAME is a config of the package, whole ("methods/clip") or its last part ("clip"). Raises UserError when there is no
  such file or config.
  """
  words = path.split(":")
  for count in range(len(words), 0, -1):  # a path that exists is that path, whatever letters it has
    file, arg = pathlib.Path(":".join(words[:count])), ":".join(words[count:])
    if file.suffix == ".py" and file.is_file():
      return file, arg or None
  name, _, arg = path.partition(":")
  names = shipped()
  meant = [name] if name in names else [whole for whole in names if whole.rpartition("/")[2] == name]
  if len(meant) == 1:
    return SHIPPED / f"{meant[0]}.py", arg or None
  raise UserError(
    f"--config {name or repr(name)}: {_absent(name, meant, names)}`mmcontrast configs` lists those of the package"
  )


def _absent(name: str, meant: list[str], names: Mapping[str, str]) -> str:
  """What is wrong with a `name` that is neither a file nor one config of the package, and what was meant."""
  if meant:
    return f"several configs have this name; give {' or '.join(meant)}; "
  file = pathlib.Path(name)
  what = "no such file" if file.suffix == ".py" else "no such config, and no file that ends in .py"
  if not file.name:
    return f"{what}; "
  if file.with_suffix(".py").is_file():
    return f"{what}; did you mean {str(file.with_suffix('.py'))!r}? "
  stem = file.stem if file.suffix == ".py" else file.name
  beside = {path.stem: str(path) for path in sorted(file.parent.glob("*.py"))} if file.parent.is_dir() else {}
  choices = beside | {whole.rpartition("/")[2]: whole for whole in names}
  for some in (beside, choices) if file.suffix == ".py" else (choices,):  # who writes .py means a file first
    if close := difflib.get_close_matches(stem, some, n=1, cutoff=0.65):
      return f"{what}; did you mean {some[close[0]]!r}? "
  return f"{what}; "


def run(path: str) -> Any:
  """What `get_config` of the config that `path` means (see `split`) returns; the file is run once.

  Raises UserError when there is no such config, its file fails, or it does not know the argument.
  """
  file, arg = split(path)
  folder = _Folder(file.resolve().parent)
  try:
    get_config = getattr(folder.run(file.resolve()), "get_config", None)
    if not callable(get_config):
      raise UserError("a config file has a function get_config(arg=None) that returns the config; this one has none")
    if arg is not None:
      _check_argument(file, arg, get_config)
    return get_config() if arg is None else get_config(arg)
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  except Exception as error:
    raise UserError(f"{path}: get_config failed: {_what_failed(error, file)}") from error


class _Folder:
  """The modules of one folder, under a package name that no other folder has."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.name = f"mmcontrast_config_{hashlib.sha1(str(folder).encode()).hexdigest()[:12]}"
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{self.name}.")]:
      del sys.modules[name]  # of an earlier load: the files may have changed
    package = types.ModuleType(self.name, f"The config files of {folder}.")
    package.__path__ = [str(folder)]
    sys.modules[self.name] = package
    self.builtins = {**vars(builtins), "__import__": self._import}
    importlib.invalidate_caches()  # and there may be new ones

  def run(self, file: pathlib.Path) -> types.ModuleType:
    """The module of a `file` of the folder, whatever its name."""
    whole = f"{self.name}.{file.stem.replace('.', '_')}"
    loader = _Source(whole, str(file), self.builtins)
    return self._new(importlib.util.spec_from_file_location(whole, file, loader=loader))

  def load(self, name: str) -> types.ModuleType:
    """The module of the dotted `name` in the folder, run if it was not yet."""
    module = sys.modules[self.name]
    for part in name.split("."):
      parent, whole = module, f"{module.__name__}.{part}"
      module = sys.modules.get(whole)
      if module is None:
        spec = importlib.machinery.PathFinder.find_spec(whole, getattr(parent, "__path__", []))
        if spec is None:
          raise ModuleNotFoundError(f"No module named {name!r} in {self.folder}", name=name)
        if isinstance(spec.loader, importlib.machinery.SourceFileLoader):
          spec.loader = _Source(whole, spec.origin, self.builtins)
        module = self._new(spec)
        setattr(parent, part, module)
    return module

  def _new(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
      spec.loader.exec_module(module)
    except BaseException:
      del sys.modules[spec.name]
      raise
    return module

  def _import(self, name, globals=None, locals=None, fromlist=(), level=0):
    """`import` as the folder's files mean it: what lies in the folder, else what anybody would get."""
    if level:
      name = importlib.util.resolve_name("." * level + name, globals["__package__"])
      if f"{name}.".startswith(f"{self.name}."):
        name, level = name[len(self.name) + 1 :], 0
    elif not self._has(name.partition(".")[0]):
      return builtins.__import__(name, globals, locals, fromlist, level)
    module = self.load(name) if name else sys.modules[self.name]
    if not fromlist:
      return sys.modules[f"{self.name}.{name.partition('.')[0]}"]
    for part in fromlist:  # a submodule need not be an attribute yet
      inside = f"{name}.{part}".lstrip(".")
      if not hasattr(module, part) and hasattr(module, "__path__") and self._finds(inside):
        self.load(inside)
    return module

  def _has(self, top: str) -> bool:
    """Whether the folder has a module or package `top` of its own."""
    place = self.folder / top
    if top == "mmcontrast" or top in sys.builtin_module_names:
      return False
    if place.with_name(f"{top}.py").is_file() or (place / "__init__.py").is_file():
      return True
    if not place.is_dir():
      return False
    outside = importlib.util.find_spec(top)  # a bare folder comes after every package, as ever
    return outside is None or outside.origin is None

  def _finds(self, name: str) -> bool:
    head, _, last = name.rpartition(".")
    parent = sys.modules[f"{self.name}.{head}".rstrip(".")]
    return importlib.machinery.PathFinder.find_spec(f"{parent.__name__}.{last}", parent.__path__) is not None


class _Source(importlib.machinery.SourceFileLoader):
  """Runs a file with builtins of its folder, always from its text: a cache goes by whole seconds."""

  def __init__(self, name: str, path: str, names: dict[str, Any]):
    super().__init__(name, path)
    self.names = names

  def get_code(self, fullname: str) -> types.CodeType:
    return self.source_to_code(self.get_data(self.path), self.path)

  def exec_module(self, module: types.ModuleType) -> None:
    module.__dict__["__builtins__"] = self.names
    super().exec_module(module)


def _check_argument(file: pathlib.Path, arg: str, get_config: Any) -> None:
  """Raises UserError for an `arg` that `get_config` does not look at, or knows no such of.

  Seen in its text: one that compares its argument with constants and does nothing else with it knows those only.
  What it passes on is checked by whoever reads it, such as `mmcontrast.config.sized`.
  """
  parameters = list(inspect.signature(get_config).parameters)
  whole = ast.parse(file.read_text(encoding="utf-8"))
  functions = [node for node in whole.body if isinstance(node, ast.FunctionDef) and node.name == "get_config"]
  if parameters and not functions:  # imported, or made by a call: not ours to read
    return
  name = parameters[0] if parameters else ""
  nodes = list(ast.walk(functions[-1])) if name else []
  uses = {id(node) for node in nodes if isinstance(node, ast.Name) and node.id == name}
  known, compared = set(), set()
  for node in nodes:
    if isinstance(node, ast.Compare):
      sides = [node.left, *node.comparators]
      others = [side for side in sides if id(side) not in uses]
      texts = [
        leaf.value
        for side in others
        for leaf in ast.walk(side)
        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
      ]
      if texts and all(isinstance(side, ast.Constant | ast.Tuple | ast.List | ast.Set) for side in others):
        compared |= {id(side) for side in sides if id(side) in uses}
        known |= set(texts)
  if not uses:
    raise UserError(f"this config takes no argument, but {arg!r} was given after the colon")
  if len(compared) == len(uses) and arg not in known:
    raise UserError(f"no such argument {arg!r} after the colon; {nearest(arg, known)}")


def _what_failed(error: Exception, file: pathlib.Path) -> str:
  """One line on an `error` of the code of a config file, with the line of that file."""
  frames = [
    frame
    for frame in traceback.extract_tb(error.__traceback__)
    if pathlib.Path(frame.filename).resolve().is_relative_to(file.resolve().parent)
  ]
  if isinstance(error, SyntaxError):
    where = f" ({pathlib.Path(error.filename).name}, line {error.lineno})" if error.filename else ""
    return f"SyntaxError: {error.msg}{where}"
  where = f" ({pathlib.Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
  hint = ""
  by_stem = collections.defaultdict(list)
  for name in shipped() | {"emoji": ""}:
    by_stem[name.rpartition("/")[2]].append(name)
  missing = getattr(error, "name", None) if isinstance(error, ImportError | AttributeError) else None
  if isinstance(error, AttributeError) and isinstance(getattr(error, "obj", None), types.ModuleType):
    missing = error.obj.__name__
  if missing in by_stem:
    *folders, last = by_stem[missing][0].split("/")
    hint = f"; for the config of the package: from {'.'.join(['mmcontrast.configs', *folders])} import {last}"
  elif isinstance(missing, str) and (above := file.resolve().parent.parent / f"{missing}.py").is_file():
    hint = f"; {above} is in another folder, and a config can import only files of its own folder"
  return f"{type(error).__name__}: {one_line(error, most=10_000)}{where}{hint}"
