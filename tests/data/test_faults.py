"""Faults put into a source: reads that fail, hang or die, records that are bad, filters; nothing is lost unseen."""

import contextlib
import threading
import time
import weakref

import numpy as np
import pytest
from toy_source import BATCH, Toy, take

from mmcontrast.data import attempts, captions, images, pipeline, reading
from mmcontrast.data.settings import defaults, resolve
from mmcontrast.data.sources import BadRecord
from mmcontrast.errors import UserError

QUICK = dict(retries=2, backoff_seconds=0.001, timeout_seconds=20.0, max_share=0.05)


@pytest.fixture(scope="module")
def config(data_dir):
  return dict(image_size=8, views=dict(image=1, text=1), cache="none", on_error=QUICK,
              tokenizer=str(data_dir / "emoji_views" / "tokenizer.model"))  # fmt: skip


# One thread: of two that ask for the same record at once, both would count its attempts.
IMAGES = dict(image_size=8, views=dict(image=1), cache="none", on_error=QUICK, read=dict(threads=1))


class Failing(Toy):
  """Does `fault(attempt)` before it reads the record `index`, attempt = 1, 2, ..."""

  def __init__(self, count, faults):
    super().__init__(count)
    self.faults, self.attempts = faults, dict.fromkeys(faults, 0)

  def __getitem__(self, index):
    if index in self.faults:
      self.attempts[index] += 1
      self.faults[index](self.attempts[index])
    return super().__getitem__(index)


def fail(error, times=10**9):
  def fault(attempt):
    if attempt <= times:
      raise error

  return fault


def indices(batches):
  return np.concatenate([batch["index"] for batch in batches])


def test_a_read_that_fails_twice_is_tried_again():
  source = Failing(60, {7: fail(OSError("flaky"), times=2)})
  batches, iterator = take(1, IMAGES, source, batch_size=60)
  assert set(indices(batches)) == set(range(60)) and not iterator.bad_records
  assert source.attempts[7] >= 3 and iterator.counts["data/retries"] == 2 and iterator.counts["data/skipped"] == 0


def test_a_read_that_fails_for_good_is_skipped_and_counted():
  source = Failing(60, {7: fail(OSError("no route")), 8: fail(BadRecord("not a record")), 30: fail(FileNotFoundError(
    2, "No such file", "thirty.jpg"))})  # fmt: skip
  batches, iterator = take(1, IMAGES, source, batch_size=60)
  assert {7, 8, 30}.isdisjoint(indices(batches)) and (indices(batches) == 9).sum() == 3
  assert source.attempts == {7: 3, 8: 1, 30: 1}  # another attempt mends neither of the last two
  assert iterator.counts == {"data/skipped": 3, "data/bad_records": 3, "data/filtered": 0, "data/retries": 2}
  assert "no route" in iterator.bad_records[7] and "thirty.jpg" in iterator.bad_records[30]


def test_backoff_doubles(monkeypatch):
  waited, attempt = [], attempts.Attempts(dict(retries=4, backoff_seconds=0.5, timeout_seconds=9.0))
  monkeypatch.setattr(attempt._closed, "wait", waited.append)
  with pytest.raises(OSError, match="never"):
    attempt(lambda: (_ for _ in ()).throw(OSError("never")))
  assert waited == [0.5, 1.0, 2.0, 4.0]


def test_reads_go_ahead_of_who_asks_for_them():
  ahead, seen = attempts.Attempts(dict(retries=1, backoff_seconds=0.001, timeout_seconds=20.0)), []

  def read(place):
    seen.append(place)
    if place == 2 and seen.count(2) == 1:
      raise OSError("flaky")
    return 10 * place

  results = ahead.ahead([lambda place=place: read(place) for place in range(4)])
  assert results[3]() == 30 and seen == [0, 1, 2, 3]  # in order, whatever is asked for first
  assert [result() for result in results[:3]] == [0, 10, 20] and seen == [0, 1, 2, 3, 2] and ahead.repeated == 1
  ahead.close()


def test_what_is_read_after_a_hanging_read_still_comes():
  release = threading.Event()
  before = threading.active_count()
  ahead = attempts.Attempts(dict(retries=0, backoff_seconds=0.001, timeout_seconds=0.3))
  first, hanging, last = ahead.ahead([lambda: 1, lambda: release.wait(), lambda: 3])
  assert last() == 3 and first() == 1
  with pytest.raises(TimeoutError, match="no answer within"):
    hanging()
  ahead.close()
  release.set()
  deadline = time.monotonic() + 10
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() <= before


def test_closing_ends_the_waiting_for_a_read_that_goes_ahead():
  release = threading.Event()
  ahead = attempts.Attempts(dict(retries=3, backoff_seconds=9.0, timeout_seconds=60.0))
  result = ahead.ahead([lambda: release.wait(), lambda: 2])[1]
  threading.Timer(0.1, ahead.close).start()
  began = time.monotonic()
  with pytest.raises(attempts.Closed):
    result()
  assert time.monotonic() - began < 5
  release.set()


def test_a_record_is_read_once_a_chunk():
  source = Failing(60, {7: fail(BadRecord("broken")), **{index: lambda attempt: None for index in (6, 8, 9)}})
  batches, _ = take(1, IMAGES, source, batch_size=60)
  # 8 stands in two rows, for itself and for 7; the source is asked again for the second alone.
  assert source.attempts == {7: 1, 6: 1, 8: 2, 9: 1} and (indices(batches) == 8).sum() == 2


def test_pixels_are_let_go_before_the_next_are_decoded(monkeypatch):
  alive, most = [], []

  def decode(*args, **kwargs):
    most.append(sum(ref() is not None for ref in alive))
    pixels = images.decode(*args, **kwargs)
    alive.append(weakref.ref(pixels))
    return pixels

  monkeypatch.setattr("mmcontrast.modalities.image.decode", decode)
  take(1, IMAGES, Toy(60, {index: dict(images={"a": Toy(1)[0]["images"]["a"]}) for index in range(60)}), batch_size=60)
  assert len(most) >= 60 and max(most) == 0


def test_a_read_that_hangs_is_given_up():
  release = threading.Event()
  source = Failing(60, {7: lambda attempt: release.wait()})
  before = threading.active_count()
  began = time.monotonic()
  settings = {**IMAGES, "on_error": {**QUICK, "retries": 1, "timeout_seconds": 0.3}}
  batches, iterator = take(1, settings, source, batch_size=60)
  assert time.monotonic() - began < 15
  assert 7 not in indices(batches) and "no answer within 0.3 seconds" in iterator.bad_records[7]
  assert iterator.counts["data/retries"] == 1 == source.attempts[7] - 1
  release.set()  # what hung ends, and its thread with it
  deadline = time.monotonic() + 10
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() <= before


def test_one_hanging_read_after_another_stops_the_run(monkeypatch):
  monkeypatch.setattr(attempts, "_MOST_HUNG", 5)
  release = threading.Event()
  source = Failing(400, {index: lambda attempt: release.wait() for index in range(400)})
  before = threading.active_count()
  settings = {**IMAGES, "on_error": {**QUICK, "retries": 0, "timeout_seconds": 0.02, "max_share": 1.0}}
  settings["read"] = dict(threads=3)
  with pytest.raises(UserError, match=r"\d reads hang for more than data.on_error.timeout_seconds=0.02: is"):
    take(1, settings, source)
  assert threading.active_count() - before <= 5 + 2 * 3  # those that hang, and readers not ended yet
  release.set()


def test_closing_does_not_wait_for_a_read_that_hangs():
  release = threading.Event()
  source = Failing(400, {int(index): lambda attempt: release.wait() for index in range(399)})
  iterator = pipeline.train_batches(IMAGES, seed=0, batch_size=8, source=Toy(400))
  iterator._loader.readers["toy"]._source = source
  threading.Timer(0.2, iterator.close).start()
  began = time.monotonic()
  with contextlib.suppress(Exception):  # which one is not the point
    for _ in range(100):
      next(iterator)
  assert time.monotonic() - began < 10
  release.set()


def test_a_source_that_dies_ends_the_run_with_its_name():
  source = Failing(60, {7: fail(KeyError("caption"))})
  with pytest.raises(UserError, match=r"dataset toy, record 7: KeyError: 'caption'; the source failed in"):
    take(1, IMAGES, source, batch_size=60)


def test_a_shard_that_vanishes_aborts_past_the_share_and_is_named():
  gone = {}
  source = Failing(480, {index: lambda attempt: gone and fail(OSError(2, "No such file", "shard-003.tar"))(attempt)
                         for index in range(120, 240)})  # fmt: skip
  iterator = pipeline.train_batches(IMAGES, seed=0, batch_size=BATCH, source=source)
  next(iterator)
  gone["now"] = True
  expected = r"dataset toy, record \d+: .*shard-003.tar.*; 2[567] of 480 records are bad, more than .*max_share=0.05"
  with pytest.raises(UserError, match=expected) as raised:
    for _ in range(30):
      next(iterator)
  assert "\n" not in str(raised.value)
  iterator.close()


def reader(source, **changes):
  settings = resolve({**IMAGES, **changes})
  return reading.Reader(source, settings, attempts.Attempts(settings["on_error"]))


def test_the_share_is_of_what_was_seen_once_enough_was(monkeypatch):
  monkeypatch.setattr(reading, "_ENOUGH_SEEN", 100)
  everything = Failing(1000, {index: fail(BadRecord("broken")) for index in range(1000)})
  with pytest.raises(UserError, match="6 of the 6 seen of 1000 records are bad"):  # not 51, 5 % of the whole
    reader(everything).usable(0)
  few = reader(Failing(1000, {index: fail(BadRecord("broken")) for index in range(0, 1000, 25)}))  # 4 %
  for index in range(1000):
    few.usable(index)
  assert len(few.bad) == 40 and few.seen == 1000
  early = reader(Failing(1000, {0: fail(BadRecord("broken"))}))
  assert early.usable(0).index == 1  # 1 of the first 2 is not beyond 5 %


def test_a_bad_first_record_is_no_reason_to_stop():
  for cache in ("auto", "decoded", "none"):
    batches, _ = take(1, {**IMAGES, "cache": cache}, Toy(60, {0: dict(images={"a": b""})}), batch_size=60)
    assert (indices(batches) == 1).sum() == 2


def test_counts_add_up():
  broken = {index: dict(images={"a": b"?"}) for index in (3, 4, 50)} | {index: dict(captions={"caption": ["x" * 90]})
                                                                       for index in range(20, 40)}  # fmt: skip
  source = Toy(200, broken)
  settings = {**IMAGES, "views": dict(image=1, text=1), "filter": dict(max_caption=50)}
  settings = resolve(settings)
  found = reading.Reader(source, settings, attempts.Attempts(settings["on_error"]))
  examples = [found.usable(index) for index in [*range(200), *range(200)]]
  why = [example.why for example in examples]
  replaced = sum(example.index != index for example, index in zip(examples, [*range(200)] * 2))
  assert why.count(reading.FOR_BAD) == 6 and why.count(reading.FOR_FILTERED) == 40 == replaced - 6
  assert found.seen == 200 == found.usable_seen + len(found.bad) + found.filtered.total()
  assert list(found.bad) == [3, 4, 50] and found.filtered == {"max_caption": 20}


def test_counts_and_summary_of_batches(config):
  broken = {index: dict(images={"a": b"?"}) for index in (3, 4, 50, 70)} | {9: dict(captions={"caption": ["x" * 90]})}
  settings = {**config, "filter": dict(max_caption=50), "on_error": {**QUICK, "max_share": 0.1}}
  batches, iterator = take(4, settings, Toy(96, broken), batch_size=48)  # two epochs
  wanted = indices(take(4, {**settings, "filter": {}}, Toy(96), batch_size=48)[0])
  changed = int((indices(batches) != wanted).sum())
  assert iterator.examples == 4 * 48
  assert (iterator.for_bad, iterator.for_filtered) == (8, 2) and changed == 10
  assert iterator.counts == {"data/skipped": 10, "data/bad_records": 4, "data/filtered": 1, "data/retries": 0}
  line = iterator.summary()
  assert line.startswith("data: 192 examples, 10 of them replacements; 4 bad records, 1 filtered (max_caption 1), 0 ")
  assert line.count("toy-") == 3 and line.endswith("; ...") and "\n" not in line


@pytest.mark.parametrize(("bounds", "left", "took"), [
  (dict(min_side=11), 40, {"min_side": 20}),
  (dict(max_aspect=1.5), 40, {"max_aspect": 20}),
  (dict(min_caption=8), 50, {"min_caption": 10}),
  (dict(max_caption=8), 20, {"max_caption": 40}),
])  # fmt: skip
def test_filters_leave_out_and_count_apart(config, bounds, left, took):
  import io

  from PIL import Image

  def png(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "png")
    return buffer.getvalue()

  fields = {index: dict(images={"a": png(30, 10)}, captions={"caption": [f"number {index}"]}) for index in range(20)}
  fields |= {index: dict(captions={"caption": [f"number {index}"]}) for index in range(20, 60)}
  for index in range(0, 20) if "max_caption" in bounds else ():
    fields[index] = dict(captions={"caption": ["short", "far too long for it"]})  # one of two is enough
  for index in range(10) if "min_caption" in bounds else ():
    fields[index] = dict(captions={"caption": ["short"]})
  batches, iterator = take(1, {**config, "filter": bounds}, Toy(60, fields), batch_size=60)
  assert len(set(indices(batches))) == left and iterator.filtered == took and not iterator.bad_records


def test_a_filter_that_takes_everything_says_so():
  expected = r"dataset toy: no usable record among the first 60 of 60: 0 bad, 60 filtered \(min_side 60\); loosen"
  with pytest.raises(UserError, match=expected):
    take(1, {**IMAGES, "filter": dict(min_side=20)}, Toy(60))


@pytest.mark.parametrize(("text", "expected"), [
  ("a\ud800b", "a?b"), ("a\x00b\x1b[31m", "a b [31m"), ("two\nlines", "two lines"), ("naïve 日本", "naïve 日本"),
  ("x" * 10**6, "x" * 100),
])  # fmt: skip
def test_captions_are_cleaned(text, expected):
  assert captions.clean(text, 100) == expected


def test_wild_captions_become_tokens(config):
  wild = {0: "\ud800 \x00", 1: "x " * 500_000, 2: "\x07", 3: "日" * 10**6}
  began = time.monotonic()
  source = Toy(60, {index: dict(captions={"caption": [text]}) for index, text in wild.items()})
  batches, iterator = take(1, config, source, batch_size=60)
  assert time.monotonic() - began < 10
  assert iterator.bad_records == {2: "toy-2: empty caption"}
  row = batches[0]["text"][batches[0]["index"] == 1][0, 0]
  assert row[-1] == 2  # eos, after the cut


@pytest.mark.parametrize(("wrong", "message"), [
  (dict(filter=dict(min_size=3)), "data.filter.min_size: unknown key; did you mean 'min_side'"),
  (dict(filter=dict(min_side=-1)), "data.filter.min_side: -1; give a number at least 0"),
  (dict(filter=dict(max_aspect=0.5)), "data.filter.max_aspect: 0.5; give a number at least 1, or 0 for any"),
  (dict(filter=dict(min_caption=9, max_caption=3)), "data.filter: min_caption=9 is above max_caption=3"),
  (dict(on_error=dict(retries=-1)), "data.on_error.retries: -1; give a whole number, at least 0"),
  (dict(on_error=dict(max_share=2)), "data.on_error.max_share: 2; give a number from 0 to 1"),
  (dict(on_error=dict(timeout_seconds=0)), "data.on_error.timeout_seconds: 0; give a number from 0.001 to"),
  (dict(read=dict(threads=0)), "data.read.threads: 0; give a whole number, at least 1"),
  (dict(limits=dict(caption_characters=0)), "data.limits.caption_characters: 0; give a whole number"),
  (dict(missing="masc"), "data.missing: no such choice 'masc'; did you mean 'mask'"),
  (dict(identity="captions"), "data.identity: no such choice 'captions'; did you mean 'caption'"),
  (dict(identity="caption", views=dict(image=1)), "data.identity: 'caption' needs text views"),
  (dict(captions=("a", "b"), languages=("en", "de")), "data.captions: data.languages shows names instead"),
])  # fmt: skip
def test_settings_that_make_no_sense(wrong, message):
  with pytest.raises(UserError, match=message):
    resolve(wrong)


def test_filters_are_off_by_default():
  assert not any(defaults()["filter"].values())
  assert images.passing({"a": b"?"}, defaults()["filter"]) == {"a": b"?"}
