"""`wordnet`: 82,115 meanings of nouns, what each means, and how they hang together.

Of Debian's package wordnet-base (wordnet_synsets.py; 6.5 MB, WordNet's licence), taken where it lies: installed, else
the file that $MMCONTRAST_WORDNET names, else by `apt-get download`. An example is a synset: what it means, what it is a
kind of; graph.json beside them holds all synsets and relations, of which the source cuts each one's neighbourhood. Two
tenths of the subtrees are held out whole, half of them for validation; what is in one is in no graph to train on.
"""

from __future__ import annotations

import collections
import json
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from mmcontrast.data import tokenizers
from mmcontrast.data.datasets.emoji_concepts import SPLITS
from mmcontrast.data.datasets.wordnet_synsets import COPYRIGHT, GROUPS, KINDS, PACKAGE, WordNet, read_wordnet

VOCABULARY = 4000
TAG_USES = 10
_TRAIN_TOKENIZER = 30_000  # captions
_HYPERNYMS, _TOPIC = ("hypernym", "instance_of"), "topic"

ATTRIBUTION = """# Licence of the data in this folder

Words, glosses and relations: WordNet 3.0, copyright Princeton University, from Debian's {package} {version}; its file
of copyrights follows. Changes made: examples were cut from the glosses; of relations that say the same both ways one is
kept.

"""


class Wordnet(tfds.core.GeneratorBasedBuilder):
  """The synsets; splits by subtree."""

  VERSION = tfds.core.Version("1.0.0")
  name = "wordnet"

  def __init__(self, **options):
    self._scratch = tempfile.TemporaryDirectory(prefix="wordnet-")
    root = PACKAGE.root(pathlib.Path(self._scratch.name))
    self._wordnet = read_wordnet(root / PACKAGE.installed.relative_to("/"))
    self._copyright = (root / COPYRIGHT).read_bytes() if (root / COPYRIGHT).is_file() else b""
    self._above, self._topics = (
      _targets(self._wordnet, kinds) for kinds in (_HYPERNYMS, (_TOPIC,))
    )  # fmt: skip
    self._names = subtree_names(self._wordnet)
    uses = collections.Counter(self._wordnet.name(topic) for topics in self._topics.values() for topic in topics)
    self._tags = sorted(tag for tag, count in uses.items() if count >= TAG_USES)
    super().__init__(**options)

  @property
  def _labels(self) -> dict[str, list[str]]:
    of_split = {split: [name for root, name in self._names.items() if self._wordnet.split[root] == split]
                for split in SPLITS[1:]}  # fmt: skip
    return {
      "group": list(GROUPS),
      "subtree": list(self._names.values()),
      **{f"{split}_subtree": names for split, names in of_split.items()},
    }

  def _info(self) -> tfds.core.DatasetInfo:
    text, label = tfds.features.Text, tfds.features.ClassLabel
    return tfds.core.DatasetInfo(
      builder=self,
      description="WordNet's nouns: what they mean, and how they hang together.",
      features=tfds.features.FeaturesDict(
        {
          "captions": tfds.features.Sequence(text()),
          "tags": tfds.features.Sequence(label(names=self._tags)),
          "labels": {name: label(names=names) for name, names in self._labels.items()},
          "id": tfds.features.Scalar(np.int32),
          "key": text(),
          "mirror_safe": tfds.features.Scalar(np.bool_),
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split: str):
    wordnet, labels = self._wordnet, self._labels
    for place, synset in enumerate(wordnet.synsets):
      if wordnet.split[place] != split:
        continue
      subtree = self._names.get(wordnet.subtree[place])
      topics = {wordnet.name(topic) for topic in self._topics[place]}
      yield (
        place,
        {
          "captions": self._captions(place),
          "tags": [tag for tag in self._tags if tag in topics],
          "labels": {
            name: synset.group if name == "group" else subtree if subtree in names else -1
            for name, names in labels.items()
          },
          "id": place,
          "key": f"{synset.key} {synset.words[0]}",
          "mirror_safe": True,
        },
      )

  def _captions(self, place: int) -> list[str]:
    """What it means; its name and that of one thing that it is a kind of."""
    synset, above = self._wordnet.synsets[place], self._above[place]
    kind = [f"{synset.words[0]}, a kind of {self._wordnet.name(above[0])}"] if above else []
    return [synset.gloss, *kind]

  def side_files(self) -> dict[str, bytes | dict]:
    """As of EmojiViews; graph.json: names, glosses and split of all synsets, their edges and the edges' kinds."""
    wordnet = self._wordnet
    train = [place for place, split in enumerate(wordnet.split) if split == "train"]
    shown = train[:: -(-2 * len(train) // _TRAIN_TOKENIZER)]
    self._scratch.cleanup()
    graph = {
      "kinds": KINDS,
      "names": [", ".join(synset.words) for synset in wordnet.synsets],
      "glosses": [synset.gloss for synset in wordnet.synsets],
      "split": wordnet.split,
      "edges": wordnet.edges,
    }
    return {
      "graph.json": json.dumps(graph).encode(),
      "metadata.json": {
        "name": self.name,
        "version": str(self.version),
        "trainable": True,
        "styles": [],
        "tags": self._tags,
        "labels": self._labels,
        "concepts": [],
        "things": {"graph": ["neighbourhood"]},
        "left_out": wordnet.left_out,
      },
      "tokenizer.model": tokenizers.train([text for place in shown for text in self._captions(place)], VOCABULARY),
      "ATTRIBUTION.md": ATTRIBUTION.format(package=PACKAGE.name, version=PACKAGE.version).encode() + self._copyright,
    }


def subtree_names(wordnet: WordNet) -> dict[int, str]:
  """The first synset of each subtree -> what the subtree is called, no two alike: one word or two, or its group too."""
  roots = wordnet.roots()
  uses = collections.Counter(wordnet.name(root) for root in roots)
  names: dict[int, str] = {}
  for root in roots:
    of = wordnet.synsets[root]
    first = of.words[0]
    choices = (first, ", ".join(of.words[:2]), f"{first} ({of.group})", f"{first} {of.key}")
    names[root] = next(name for name in choices if name not in names.values() and uses[name] < 2)
  return names


def _targets(wordnet: WordNet, kinds: tuple[str, ...]) -> dict[int, list[int]]:
  """Synset -> those that edges of some kinds lead to."""
  numbers = {KINDS.index(kind) for kind in kinds}
  found: dict[int, list[int]] = collections.defaultdict(list)
  for start, end, kind in wordnet.edges:
    if kind in numbers:
      found[start].append(end)
  return found
