"""Makes clip_bpe.json: texts, the ids that open_clip 3.3.0 gives them, and the merges those ids need.

    pip install open_clip_torch==3.3.0 ftfy regex && python tests/golden/make_clip_bpe.py

The merges are facts about OpenAI's vocabulary file (its line numbers, 0 for the first merge), of
which the file itself, 1.3 MB, is not kept here.
"""

import json
import pathlib

from open_clip.tokenizer import SimpleTokenizer

LENGTH = 77
LONG = (
  "A very long caption of a crowded harbour at dusk: fishing boats with peeling paint, gulls on every mast, "
  "two children who share an ice cream, a dog asleep on coiled rope, lanterns along the quay, nets drying, "
  "an old lighthouse that still turns, and far behind it the mountains, blue, then violet, then gone; nobody "
  "looks at the camera, nobody hurries, and the photographer's own shadow falls across the cobblestones."
)
TEXTS = [
  "", "   ", "a", "!", "!!!", "wow! so cute!!", "a photo of a cat.", "A Photo Of A CAT",
  "two  dogs\tplaying\n\nin snow",
  "it's John's dog; they'll say we're here, I'd've, don't, 'twas, I'm", "IT'S", "'\u017f \u017ft \u212aelvin",
  "rock'n'roll ''quoted'' \u201ccurly\u201d \u2018single\u2019 isn\u2019t\u2026",
  "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m S\u00e3o Paulo fa\u00e7ade",
  "\u0141\u00f3d\u017a \u0130stanbul stra\u00dfe STRASSE",
  "cafe\u0301 e\u0301\u0301 n\u0303",
  "caf\u00c3\u00a9 \u00e2\u20ac\u0153broken\u00e2\u20ac\u009d encodings \u00c2\u00a9",
  "fish &amp; chips &lt;b&gt; &quot;x&quot; &eacute; &#39;s &#x1F600; &amp;amp;lt; AT&T &notanentity; &nbsp;!",
  "0 1 12 2024 3,141.59 1e-5 100% #1 50\u20ac $9.99 \u00bd \u00b2 \u2167 \u0663\u0664 \u4e09",
  "mail@example.com https://example.com/a_b?c=d&e=f#g C:\\path\\file.txt snake_case camelCase __init__",
  "<start_of_texts> [CLS] </s> {curly} (round) <tag/>",
  "\U0001f600\U0001f602 \u2764\ufe0f \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 "
  "\U0001f44d\U0001f3fd 1\ufe0f\u20e3 \u26a1 \U0001f9d1\u200d\U0001f680",
  "\u65e5\u672c\u8a9e \u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587 \u4f60\u597d\uff0c\u4e16\u754c\uff01 "
  "\ud55c\uad6d\uc5b4 \uff21\uff22\uff23 \uff76\uff85",
  "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u041f\u0440\u0438\u0432\u0435\u0442",
  "\u0393\u03b5\u03b9\u03ac",
  "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947 \u1e9e",
  "\ufb01sh \ufb02y \u2460 \u2122 \u00ae \u2014 \u2013 \u2022 \u2192 \u221e \u2260 \u00a0x\u3000y\u200bz",
  "hyphen-ated, semi;colon: ...??!! ~~~ --- === *** ^_^ :-) <3 |pipe|",
  "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis " + "aaaaaaaa" * 4,
  LONG, LONG.upper(), "word " * 100, "x" * 200, "\U0001f600" * 40,
]  # fmt: skip


class Ranks(dict):
  """Merge -> rank; remembers which merges were made."""

  def __init__(self, ranks):
    super().__init__(ranks)
    self.used = set()

  def __contains__(self, merge):
    found = super().__contains__(merge)
    if found:
      self.used.add(merge)
    return found


def main():
  tokenizer = SimpleTokenizer()
  tokenizer.bpe_ranks = ranks = Ranks(tokenizer.bpe_ranks)
  ids = [[int(i) for i in row] for row in tokenizer(TEXTS, LENGTH)]
  table = {
    "source": "open_clip_torch 3.3.0, SimpleTokenizer; merges: line numbers of bpe_simple_vocab_16e6.txt.gz",
    "length": LENGTH,
    "texts": [{"text": text, "ids": " ".join(map(str, row))} for text, row in zip(TEXTS, ids)],
    "merges": {str(ranks[merge]): " ".join(merge) for merge in sorted(ranks.used, key=ranks.get)},
  }
  path = pathlib.Path(__file__).parent / "clip_bpe.json"
  path.write_text(json.dumps(table, ensure_ascii=True, indent=0) + "\n")
  print(f"{len(TEXTS)} texts, {len(ranks.used)} merges, {path.stat().st_size} bytes")


if __name__ == "__main__":
  main()
