"""Overrides: every option that exists, whether or not the config mentions it, and errors that show the way."""

import pytest

from mmcontrast.config import base_config, load_config, options, overridden
from mmcontrast.errors import UserError


def changed(*words, **sections):
  """The config of two towers, two heads and two entries in the objective, with overrides."""
  c = base_config()
  c.towers = dict(image=dict(name="vit", patch=8), text=dict(name="text_transformer"))
  c.heads = dict(
    image_joint=dict(tower="image", name="mlp", dim=128), text_joint=dict(tower="text", name="linear", dim=8)
  )
  c.objective = dict(
    a=dict(query="image[0]/image_joint", key="text[0]/text_joint", criterion="softmax", temperature=0.1),
    b=dict(query="text[0]/text_joint", key="image[0]/image_joint@momentum", temperature="a"),
    c=dict(regularizer="uniformity", embeddings=("image[0]/image_joint",)),
  )
  c.optimizer = dict(name="adamw", learning_rate=dict(name="warmup_cosine", peak=2e-3, warmup_steps=100))
  for name, value in sections.items():
    c[name] = value
  return overridden(c, [f"--config.{word}" for word in words], "mine.py")


def at(config, key):
  for part in key.split("."):
    config = config[part]
  return config


@pytest.mark.parametrize(
  "word, value",
  [
    ("towers.text.remat=full", "full"),
    ("towers.image.drop_path=0.1", 0.1),
    ("towers.image.dtype=bfloat16", "bfloat16"),
    ("heads.image_joint.batch_norm=True", True),
    ("heads.image_joint.hidden=64", 64),
    ("heads.text_joint.bias=true", True),
    ("objective.a.weight=2", 2.0),
    ("objective.a.direction=both", "both"),
    ("objective.a.prototypes=8", 8),
    ("objective.a.negative_keys=text[1]/text_joint", ("text[1]/text_joint",)),
    ("objective.a.temperature.learned=True", True),
    ("objective.a.temperature.min=0.01", 0.01),
    ("objective.b.temperature=0.2", 0.2),
    ("objective.a.temperature=b", "b"),
    ("objective.a.bias.init=-3", -3.0),
    ("objective.a.score.name=dot", "dot"),
    ("objective.a.criterion.smoothing=0.1", 0.1),
    ("objective.c.regularizer.t=3.0", 3.0),
    ("objective.c.weight={'name': 'linear', 'init': 0.0, 'end': 1.0}", {"name": "linear", "init": 0.0, "end": 1.0}),
    ("optimizer.b2=0.98", 0.98),
    ("optimizer.clip_norm=1", 1),
    ("optimizer.frozen=towers/text/.*", ("towers/text/.*",)),
    ("optimizer.weight_decay=[('.*', 0.1)]", (("." + "*", 0.1),)),
    ("optimizer.mu_dtype=bfloat16", "bfloat16"),
    ("optimizer.layer_decay={'image': 0.75}", {"image": 0.75}),
    ("optimizer.layer_decay=0.75", 0.75),
    ("optimizer.learning_rate.end=1e-5", 1e-5),
    ("optimizer.learning_rate.warmup_epochs=2", 2),
    ("momentum.decay={'name': 'cosine', 'init': 0.99, 'end': 1.0}", {"name": "cosine", "init": 0.99, "end": 1.0}),
    ("update_rule={'name': 'project_conflicts'}", {"name": "project_conflicts"}),
    ("momentum.decay=dict(name='cosine', init=0.99, end=1.0)", {"name": "cosine", "init": 0.99, "end": 1.0}),
    ("evaluation.evaluators.zero_shot.label=class", "class"),
    ("evaluation.evaluators.knn.k=5", 5),
    ("evaluation.evaluators.linear_probe.sets=emoji_noto", ("emoji_noto",)),
    ("evaluation.data.mine={'split': 'validation'}", {"split": "validation"}),
    ("evaluation.sets=mine", ("mine",)),
    ("data.lower=canonicalize", "canonicalize"),
    ("data.lower=false", False),
    ("data.captions.alt=0.7", 0.7),
    ("data.source.languages.de=name_de", "name_de"),
    ("data.crop.rotate=10", 10.0),
    ("data.filter.min_side=32", 32),
    ("steps=1e3", 1000),
    ("init.towers/image=hf:/models/x", "hf:/models/x"),
    ("sharding=[('.*', 'fsdp')]", (("." + "*", "fsdp"),)),
  ],
)
def test_an_option_that_the_config_does_not_mention(word, value):
  found = at(changed(word), word.partition("=")[0])
  assert found == value and type(found) is type(value)


def test_a_word_for_a_mapping_grows_options():
  config = changed(
    "objective.a.criterion.smoothing=0.1",
    "objective.a.temperature.learned=True",
    "augment.image=simclr",
    "augment.image.blur=0.0",
  )
  assert config["objective"]["a"]["criterion"] == {"name": "softmax", "smoothing": 0.1}
  assert config["objective"]["a"]["temperature"] == {"init": 0.1, "learned": True}
  assert config["augment"]["image"] == {"base": "simclr", "blur": 0.0}
  two = changed("augment.image[1].solarize=0.2", augment=dict(image=("moco_v2", "moco_v2")))["augment"]["image"]
  assert two == ("moco_v2", {"base": "moco_v2", "solarize": 0.2})


def test_an_option_of_a_source_can_be_set_to_none():
  source = changed(
    "data.source.tags=None",
    "data.source.caption=None",
    "data.source.id=7",
    data={**base_config().data.to_dict(), "source": dict(tags="tags", caption="text", id="key")},
  )
  assert source["data"]["source"] == {"tags": None, "caption": None, "id": "7"}
  assert changed("towers.image.name=None")["towers"]["image"]["name"] == "None"  # which is then no such choice


def test_the_order_of_words_does_not_matter():
  words = [
    "objective.a.criterion.margin=0.3",
    "objective.a.criterion=hinge",
    "optimizer.momentum=0.5",
    "optimizer.name=sgd",
    "optimizer.learning_rate.value=0.1",
    "optimizer.learning_rate={'name': 'constant'}",
  ]
  for these in (words, words[::-1]):
    config = changed(*these)
    assert config["objective"]["a"]["criterion"] == {"name": "hinge", "margin": 0.3}
    assert config["optimizer"]["momentum"] == 0.5
    assert config["optimizer"]["learning_rate"] == {"name": "constant", "value": 0.1}


@pytest.mark.parametrize(
  "word, message",
  [
    ("towers.text.remta=full", r"no such key; did you mean '--config\.towers\.text\.remat'"),
    ("towers.txt.remat=full", r"no such key; did you mean '--config\.towers\.text'"),
    ("heads.image_joint.batchnorm=True", r"did you mean '--config\.heads\.image_joint\.batch_norm'"),
    ("heads.text_joint.batch_norm=True", r"heads\.text_joint\.batch_norm: mine\.py has no such key"),
    ("objective.a.criterion.smothing=0.1", r"did you mean '--config\.objective\.a\.criterion\.smoothing'"),
    ("objective.a.criterion.margin=0.1", r"criterion\.margin: mine\.py has no such key"),
    ("objective.c.t=1", r"objective\.c\.t: mine\.py has no such key"),
    ("optimizer.beta2=0.9", r"did you mean '--config\.optimizer\.b2'"),
    ("optimizer.learning_rate.peek=1", r"did you mean '--config\.optimizer\.learning_rate\.peak'"),
    ("evaluation.evaluators.zeroshot.label=x", r"did you mean '--config\.evaluation\.evaluators\.zero_shot'"),
    ("evaluation.evaluators.knn.kk=3", r"did you mean '--config\.evaluation\.evaluators\.knn\.k'"),
    ("weight_decay=0.1", r"did you mean '--config\.optimizer\.weight_decay'"),
    ("augment.image.blur=0", r"is a list of 2; choose one of them, such as --config\.augment\.image\[0\]\.blur"),
    ("augment.image[2].blur=0", r"is a list of 2"),
    (
      "optimizer.learning_rate=0.001",
      r"learning_rate: is a schedule, .*; to change a part of it, --config\.optimizer\.learning_rate\.peak=0\.001; "
      r"or give it whole, such as --config\.optimizer\.learning_rate=\"\{'name': 'constant', 'value': 0\.001\}\"",
    ),
    ("momentum.decay.end=1", r"momentum\.decay is 0\.999, not a schedule with options; give it whole"),
    ("batch=64", r"batch: is a mapping, .*--config\.batch\.size=64"),
    ("batch.size.x=64", r"batch\.size is one value, 256"),
    ("batch.size=64.5", r"a whole number is needed"),
    ("data.masked.views=1.5", r"a whole number is needed, such as 1"),  # whose examples are all 0
    ("steps=1e999", r"a whole number is needed"),
    ("batch.size=many", r"batch\.size=many: a whole number is needed, such as 256"),
    ("data.trim=yes", r"data\.trim=yes: True or False is needed"),
    ("optimizer.clip_norm=abc", r"another value|number"),
    ("objective.a.weight=heavy", r"weight=heavy: a number is needed"),
    ("heads.image_joint.dim=large", r"dim=large: a whole number is needed, such as 128"),
    ("steps={'a': 1}", r"takes one value"),
    ("batch.size=0", r"config\.batch\.size: 0 is not valid; give a value like its default, 256, at least 1"),
    ("log.every_steps=0", r"config\.log\.every_steps: 0 is not valid; give a value like its default, 50, at least 1"),
    ("steps=-5", r"config\.steps: -5 is not valid"),
    ("update_rule.on=towers/.*", r"no such key; an update rule 'sum' has name"),
    ("evaluation.data.mine.split=val", r"data\.mine: mine\.py has no such key; a new name is given whole"),
    ("=3", r"unexpected argument '--config\.=3'"),
  ],
)
def test_what_cannot_be_is_said_in_one_line(word, message):
  with pytest.raises(UserError, match=message) as error:
    changed(
      word,
      augment=dict(image=("moco_v2", "moco_v2")),
      optimizer=dict(
        name="adamw", clip_norm=1.0, learning_rate=dict(name="warmup_cosine", peak=2e-3, warmup_steps=100)
      ),
    )
  assert "\n" not in str(error.value) and len(str(error.value)) < 450


@pytest.mark.parametrize(
  "words, message",
  [
    (["--steps", "20"], "did you mean --config.steps=20?"),
    (["--config.steps", "20"], "the = is missing; write --config.steps=20"),
    (["--config.towers.text.remat", "full"], "the = is missing; write --config.towers.text.remat=full"),
    (["--learning_rate=1"], "did you mean --config.optimizer.learning_rate=1?"),
    (["steps=20"], "overrides look like --config.batch.size=64"),
  ],
)
def test_words_that_are_no_overrides(words, message):
  with pytest.raises(UserError) as error:
    overridden(base_config(), words)
  assert message in str(error.value)


def test_a_config_that_shares_values_keeps_doing_so():
  c = base_config()
  c.checkpoint.every_steps = c.get_ref("steps")
  found = overridden(c, ["--config.steps=7"])
  assert (found["steps"], found["checkpoint"]["every_steps"], c.steps) == (7, 7, 1000)


def test_a_section_written_anew_keeps_the_defaults_of_the_rest():
  c = base_config()
  c.batch, c.momentum, c.data.on_error = dict(size=3), dict(decay=0.9), dict(retries=1)
  found = overridden(c)
  assert found["batch"] == {"size": 3, "microbatches": 1} and found["momentum"]["update"] == "before_keys"
  assert found["data"]["on_error"]["max_share"] == 0.01
  c.momentum = dict(decya=0.9)
  with pytest.raises(UserError, match=r"unknown key config\.momentum\.decya; did you mean 'decay'"):
    overridden(c)


def test_every_option_of_every_tower_and_head_is_known():
  from mmcontrast.encoders import ENCODERS, HEADS
  from mmcontrast.registry import options_of

  base = base_config().to_dict()
  for kind, table in (("towers", ENCODERS), ("heads", HEADS)):
    for name, builder in table.items():
      assert options_of(builder).keys() <= options.section((kind, "x"), {"name": name}, base).options.keys()


def test_a_stage_has_options_of_its_own():
  words = ("towers.text.remat=full", "optimizer.b2=0.9")
  config = load_config("lit", [f"--config.stages.locked.{word}" for word in words])
  stage = next(stage for stage in config["stages"] if stage["name"] == "locked")
  assert stage["towers"]["text"]["remat"] == "full" and stage["optimizer"]["b2"] == 0.9


def test_the_defaults_fit_any_number_of_views():
  from mmcontrast.modalities.image_augmentation import view_recipes

  assert len(view_recipes(base_config().augment.image, 1)) == 1


def test_the_overrides_that_help_names_exist(capsys):
  import re

  from mmcontrast import cli

  with pytest.raises(SystemExit):
    cli.main(["train", "--help"])
  words = re.findall(r"--config\.(\S+)", capsys.readouterr().out)
  assert len(words) > 15
  for word in words:
    if "STAGE" not in word and word != "KEY=VALUE,":
      changed(word.replace("TERM", "a"))
