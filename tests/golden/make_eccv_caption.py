"""Makes eccv_caption.json: what the functions of eccv-caption give for small sets of positives.

Needs `pip install --no-deps eccv-caption==0.1.0`:

    python tests/golden/make_eccv_caption.py
"""

import json
import pathlib

import numpy as np
from eccv_caption._metrics import compute_eccv_metrics, compute_r_at_k

OUT = pathlib.Path(__file__).with_name("eccv_caption.json")


def lists(queries, query_ids, gallery, gallery_ids):
  unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
  nearest = np.argsort(-(unit(queries) @ unit(gallery).T), axis=1)
  return {int(one): [int(gallery_ids[place]) for place in row] for one, row in zip(query_ids, nearest)}


def expected(images, image_ids, texts, text_ids, cxc, eccv):
  retrieved = {"i2t": lists(images, image_ids, texts, text_ids), "t2i": lists(texts, text_ids, images, image_ids)}
  out = {}
  for way, task in (("i2t", "text_retrieval"), ("t2i", "image_retrieval")):
    out |= {f"cxc_{task}_recall@{k}": compute_r_at_k(retrieved[way], cxc[way], k) for k in (1, 5, 10)}
    found = compute_eccv_metrics(retrieved[way], eccv[way])
    names = (("recall@1", "eccv_r1"), ("r_precision", "eccv_rprecision"), ("map_at_r", "eccv_map_at_r"))
    out |= {f"eccv_{task}_{ours}": found[theirs] for ours, theirs in names}
  return {key: float(value) for key, value in out.items()}


def main():
  draw = np.random.default_rng(0)
  images, texts = (np.round(draw.normal(size=(count, 4)), 3) for count in (30, 150))
  image_ids, text_ids = draw.permutation(5000)[:30], draw.permutation(9000)[:150]
  some = lambda ids, most: [int(one) for one in draw.choice(ids, draw.integers(1, most), replace=False)]  # noqa: E731
  elsewhere = np.concatenate([text_ids, [9001, 9002, 9003]])  # captions that nobody searches
  cxc = {"i2t": {int(i): some(text_ids, 9) for i in image_ids}, "t2i": {int(t): some(image_ids, 3) for t in text_ids}}
  eccv = {
    "i2t": {int(i): some(elsewhere, 20) for i in image_ids[:12]},
    "t2i": {int(t): some(image_ids, 12) for t in text_ids[:40]},
  }
  given = dict(images=images.tolist(), image_ids=image_ids.tolist(), texts=texts.tolist(), text_ids=text_ids.tolist())
  found = expected(images, image_ids, texts, text_ids, cxc, eccv)
  OUT.write_text(json.dumps({**given, "cxc": cxc, "eccv": eccv, "expected": found}) + "\n")


if __name__ == "__main__":
  main()
