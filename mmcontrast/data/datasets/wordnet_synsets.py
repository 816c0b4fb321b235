"""The nouns of WordNet 3.0, of Debian's package wordnet-base (6.5 MB): 82,115 synsets, glosses and typed relations.

A synset is a set of words with one meaning, and a gloss that says which. The file is data.noun, whose form wndb(5WN)
tells. Whole subtrees are held out: of the largest that have SUBTREE synsets or fewer, with those that have at least
LEAST, by hash of the first one's key.
"""

from __future__ import annotations

import dataclasses
import pathlib

from mmcontrast.data.datasets.debian_package import DebianPackage
from mmcontrast.data.datasets.emoji_concepts import SPLITS, split_of
from mmcontrast.errors import UserError

PACKAGE = DebianPackage(
  dataset="wordnet",
  name="wordnet-base",
  version="1:3.0-37",
  sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
  installed=pathlib.Path("/usr/share/wordnet"),
  variable="MMCONTRAST_WORDNET",
)
COPYRIGHT = pathlib.Path(f"usr/share/doc/{PACKAGE.name}/copyright")
KINDS = (
  "hypernym", "instance_of", "member_of", "part_of", "substance_of", "topic", "region", "usage", "derived", "antonym"
)  # fmt: skip
"""Of edges: "dog" -> "canine" is a hypernym. Of two pointers that say the same both ways one is kept."""
_POINTERS = {"@": 0, "@i": 1, "#m": 2, "#p": 3, "#s": 4, ";c": 5, ";r": 6, ";u": 7, "+": 8, "!": 9}
_BOTH_WAYS = (8, 9)
GROUPS = (
  "tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling", "food",
  "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process", "quantity",
  "relation", "shape", "state", "substance", "time",
)  # fmt: skip
"""The lexicographers' files of nouns, in the order of their numbers, from 3 on."""
LEAST, SUBTREE = 100, 600


@dataclasses.dataclass(frozen=True)
class Synset:
  """One meaning.

  Attributes:
    key: "02084071", its place in the file.
    words: "dog", "domestic dog", ...
    gloss: what it means, without examples.
    group: one of GROUPS.
  """

  key: str
  words: tuple[str, ...]
  gloss: str
  group: str


@dataclasses.dataclass(frozen=True)
class WordNet:
  """All nouns.

  Attributes:
    edges: (from, to, kind), places of synsets and of KINDS, sorted.
    subtree: for each synset the place of the first one of the subtree that it is in; -1: in none, or in several.
    split: for each synset that of its subtree, "test" where it is in several with that one among them; else "train".
    left_out: lines and relations that are damaged, in words.
  """

  synsets: tuple[Synset, ...]
  edges: tuple[tuple[int, int, int], ...]
  subtree: tuple[int, ...]
  split: tuple[str, ...]
  left_out: tuple[str, ...]

  def roots(self) -> list[int]:
    """The first synsets of the subtrees, in order."""
    return sorted({root for root in self.subtree if root >= 0})

  def name(self, place: int) -> str:
    """What a synset is called: its first word."""
    return self.synsets[place].words[0]


def read_wordnet(folder: pathlib.Path) -> WordNet:
  """The nouns in a folder of WordNet's files. Raises UserError where they are not there."""
  path = folder / "data.noun"
  try:
    lines = path.read_text(encoding="utf-8").splitlines()
  except OSError as error:
    raise UserError(
      f"{path}: {error.strerror}; {PACKAGE.name} {PACKAGE.version} has it: name its .deb file with {PACKAGE.variable}"
    ) from None
  synsets, pointers, left_out = [], [], []
  for number, line in enumerate(lines, 1):
    if line.startswith("  "):  # the licence
      continue
    try:
      synset, its = _synset(line)
    except (ValueError, IndexError) as error:
      left_out.append(f"data.noun:{number}: {error}")
      continue
    synsets.append(synset)
    pointers.append(its)
  at = {synset.key: place for place, synset in enumerate(synsets)}
  edges = set()
  for place, its in enumerate(pointers):
    for kind, key in its:
      if key not in at:
        left_out.append(f"synset {synsets[place].key}: {KINDS[kind]} of {key}, which is not there")
      elif kind not in _BOTH_WAYS or (at[key], place, kind) not in edges:
        edges.add((place, at[key], kind))
  subtree, split = _subtrees(synsets, edges)
  return WordNet(tuple(synsets), tuple(sorted(edges)), tuple(subtree), tuple(split), tuple(left_out))


def _synset(line: str) -> tuple[Synset, list[tuple[int, str]]]:
  """A line of data.noun: the synset, and (kind, key) of what it points to. Raises ValueError, IndexError."""
  head, bar, gloss = line.partition(" | ")
  if not bar:
    raise ValueError("a line without a gloss")
  key, group, _, count, *rest = head.split()
  words = tuple(word.replace("_", " ") for word in rest[: 2 * int(count, 16) : 2])
  if not words:
    raise ValueError("a synset without a word")
  pointers = rest[2 * int(count, 16) :]
  found = []
  for at in range(1, 1 + 4 * int(pointers[0]), 4):
    symbol, target, part, _ = pointers[at : at + 4]
    if part == "n" and symbol in _POINTERS:
      found.append((_POINTERS[symbol], target))
  return Synset(key, words, gloss.partition('; "')[0].strip(), GROUPS[int(group) - 3]), found


def _subtrees(synsets: list[Synset], edges: set[tuple[int, int, int]]) -> tuple[list[int], list[str]]:
  """For each synset the first one of its subtree, or -1, and its split."""
  above: list[list[int]] = [[] for _ in synsets]
  below: list[list[int]] = [[] for _ in synsets]
  for start, end, kind in sorted(edges):
    if kind <= 1:
      above[start].append(end)
      below[end].append(start)
  size = [len(_under(below, place, SUBTREE + 1)) for place in range(len(synsets))]
  roots = [
    place for place in range(len(synsets))
    if LEAST <= size[place] <= SUBTREE and all(size[one] > SUBTREE for one in above[place])
  ]  # fmt: skip
  of: list[list[int]] = [[] for _ in synsets]
  for root in roots:
    for place in _under(below, root, SUBTREE + 1):
      of[place].append(root)
  splits = {root: split_of(synsets[root].key) for root in roots}
  last = [max((SPLITS.index(splits[root]) for root in its), default=0) for its in of]
  return [its[0] if len(its) == 1 else -1 for its in of], [SPLITS[number] for number in last]


def _under(below: list[list[int]], root: int, most: int) -> set[int]:
  """A synset and all kinds and instances of it; about `most` of them where there are more."""
  found, waiting = {root}, [root]
  while waiting and len(found) < most:
    for place in below[waiting.pop()]:
      if place not in found:
        found.add(place)
        waiting.append(place)
  return found
