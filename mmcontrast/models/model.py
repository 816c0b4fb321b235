"""Towers and heads: from views to named embeddings.

An embedding is named "view/head" or "view/head@momentum". A head reads a tower, or another head: a
predictor is `predictor=dict(of="image_ssl", name="mlp", ...)`. The online and the momentum branch are
the same Flax modules applied to other variables, and the momentum branch has those that its embeddings
need: a predictor whose "@momentum" no term names is in the online branch only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax

from mmcontrast.encoders import Encoded, build_encoder, complete
from mmcontrast.encoders.dropout import per_example
from mmcontrast.encoders.heads import build_head, gives, gives_tokens, gives_weights, takes
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities.real_tokens import real_tokens
from mmcontrast.objectives.embedding_path import EmbeddingPath, parse_embedding
from mmcontrast.optimization import optim

Variables = dict[str, Any]  # {"params": {"towers", "heads"}, "batch_stats": {"towers", "heads"}}


@dataclasses.dataclass(frozen=True)
class Model:
  """The modules of a run and how they are wired.

  Attributes:
    towers: tower name -> encoder module.
    heads: head name -> head module.
    tower_of_head: head name -> name of the tower that it reads, itself or through other heads.
    modality_of_tower: tower name -> modality ("image", "text").
    pad_id, eos_id: of the tokenizer; they say where a text ends: `real_tokens`.
    frozen: "towers/image", "heads/text_joint": parts that run as in evaluation (running batch
      statistics, no dropout) and receive no gradient.
    shared: head name -> {one of its submodules: the head whose parameters it uses instead of its own}.
    head_of_head: head name -> the head that it reads, of those that do not read a tower.
  """

  towers: dict[str, nn.Module]
  heads: dict[str, nn.Module]
  tower_of_head: dict[str, str]
  modality_of_tower: dict[str, str]
  pad_id: int = 0
  eos_id: int = 2
  frozen: frozenset[str] = frozenset()
  shared: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
  head_of_head: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def head_dims(self) -> dict[str, int]:
    """Head -> length of its vectors (without a token's weight), of the heads that say so."""
    return {name: head.dim for name, head in self.heads.items() if hasattr(head, "dim")}

  def init(self, key: jax.Array, views: Mapping[str, jax.Array]) -> Variables:
    """Initial variables of the online branch.

    Args:
      key: a PRNG key.
      views: modality -> one view with a leading batch axis (zeros will do):
        image [B, H, W, 3] float32, text [B, L] int32.
    """
    variables: Variables = {"params": {"towers": {}, "heads": {}}, "batch_stats": {"towers": {}, "heads": {}}}
    encoded = {}
    for number, (name, tower) in enumerate(sorted(self.towers.items())):
      inputs, mask = self._inputs(views, self.modality_of_tower[name])
      encoded[name], made = tower.init_with_output(jax.random.fold_in(key, number), inputs, mask, train=False)
      _file(variables, "towers", name, made)
    numbers = {name: number for number, name in enumerate(sorted(self.heads), start=len(self.towers))}
    projected: dict[str, Encoded] = {}
    for name in sorted(self.heads, key=lambda name: (len(self._line(name)), name)):  # what a head reads, before it
      source = projected[self.head_of_head[name]] if name in self.head_of_head else encoded[self.tower_of_head[name]]
      inputs = self._head_inputs(name, source)
      head_key = jax.random.fold_in(key, numbers[name])
      projected[name], made = self.heads[name].init_with_output(head_key, *inputs, train=False)
      _file(variables, "heads", name, made)
    for name, parts in self.shared.items():
      for part, owner in parts.items():
        _check_shared(variables["params"]["heads"], name, part, owner)
        variables["params"]["heads"][name] = {
          key: tree for key, tree in variables["params"]["heads"][name].items() if key != part
        }
    return variables

  def encode(
    self,
    variables: Variables,
    tower: str,
    inputs: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
    pooled_only: bool = False,
  ) -> tuple[Encoded, dict]:
    """One view through one tower. Returns (Encoded, new batch statistics of the tower).

    `pooled_only`: tokens are not wanted, so that encoders which can (POOLS_ALONE) need not compute them.
    """
    inputs, mask = self._inputs({self.modality_of_tower[tower]: inputs}, self.modality_of_tower[tower])
    module = self.towers[tower]
    options = {"pooled_only": True} if pooled_only and getattr(module, "POOLS_ALONE", False) else {}
    return self._apply(module, variables, "towers", tower, (inputs, mask), train, key, **options)

  def project(
    self, variables: Variables, head: str, encoded: Encoded, *, train: bool = False, key: jax.Array | None = None
  ) -> tuple[Encoded, dict]:
    """What the head's source made, a tower or another head, through that head only. Returns (Encoded, new batch
    statistics of the head)."""
    inputs = self._head_inputs(head, encoded)
    found, stats = self._apply(self.heads[head], variables, "heads", head, inputs, train, key)
    return (found if found.tokens is None else found.replace(grid=encoded.grid)), stats

  def embed_through(self, variables: Variables, head: str, encoded: Encoded) -> Encoded:
    """What a tower made, through a head and the heads before it, as in evaluation."""
    for name in self._line(head):
      encoded, _ = self.project(variables, name, encoded)
    return encoded

  def needs_tokens(self, head: str) -> bool:
    """Whether a head, or the first of the heads before it, reads a tower's tokens."""
    return takes(self.heads[self._line(head)[0]]) != ("pooled",)

  def _line(self, head: str) -> list[str]:
    """The heads from the one that reads the tower to `head` itself."""
    line = [head]
    while line[0] in self.head_of_head:
      line.insert(0, self.head_of_head[line[0]])
    return line

  @property
  def token_heads(self) -> frozenset[str]:
    """The heads that give an embedding for each token."""
    return frozenset(name for name, head in self.heads.items() if gives_tokens(head))

  @property
  def weighted_heads(self) -> frozenset[str]:
    """The heads that give each token a weight too."""
    return frozenset(name for name, head in self.heads.items() if gives_weights(head))

  def embed(
    self,
    variables: Variables,
    views: Mapping[str, jax.Array],
    names: Iterable[str],
    *,
    train: bool,
    key: jax.Array | None = None,
    seeds: jax.Array | None = None,
  ) -> tuple[dict[str, Encoded], dict]:
    """The named embeddings of one branch.

    Args:
      variables: of that branch.
      views: modality, and "image_small" where there are small crops -> [B, V, ...], all its views.
      names: embedding names of the branch; "@momentum" is only part of the name here.
      train: batch statistics are those of the batch, and dropout is on.
      key: PRNG key for dropout; view v of tower t uses the same key in every branch.
      seeds: [B] uint32; with them an example's dropout depends on its own seed and the key only.
    Returns:
      ({name: what its head made of it}, new batch statistics). A tower sees its views one after the
      other, as separate batches, each updating the running statistics; so does a head, once a view
      however many heads read it.
    """
    paths = {name: parse_embedding(name) for name in names}
    stats = variables["batch_stats"]
    embeddings = {}
    for number, (tower, array, view) in enumerate(sorted({self._source(p) for p in paths.values()})):
      view_key = None if key is None else jax.random.fold_in(key, number)
      current = {**variables, "batch_stats": stats}
      with per_example(seeds):
        encoded, new = self.encode(current, tower, views[array][:, view], train=train, key=view_key)
      stats = _with(stats, "towers", tower, new)
      made: dict[str, Encoded] = {}
      for name, path in paths.items():
        if self._source(path) == (tower, array, view):
          for head in self._line(path.head):
            if head not in made:
              source = made.get(self.head_of_head.get(head), encoded)
              current = {**variables, "batch_stats": stats}
              with per_example(seeds):
                made[head], new = self.project(current, head, source, train=train, key=view_key)
              stats = _with(stats, "heads", head, new)
          embeddings[name] = made[path.head]
    return embeddings, stats

  def branch(self, variables: Variables, names: Iterable[str]) -> Variables:
    """The part of `variables` that the embeddings `names` need: what a momentum branch copies."""
    paths = [parse_embedding(name) for name in names]
    heads = {head for p in paths for head in self._line(p.head)}
    owners = {owner for head in heads for owner in self.shared.get(head, {}).values()}
    kept = {"heads": heads | owners, "towers": {self.tower_of_head[p.head] for p in paths}}
    return {
      collection: {kind: {name: tree[kind][name] for name in sorted(kept[kind]) if name in tree[kind]} for kind in kept}
      for collection, tree in variables.items()
    }

  def _source(self, path: EmbeddingPath) -> tuple[str, str, int]:
    return self.tower_of_head[path.head], path.views, path.view

  def _inputs(self, views: Mapping[str, jax.Array], modality: str) -> tuple[jax.Array, jax.Array | None]:
    inputs = views[modality]
    return inputs, (real_tokens(inputs, self.pad_id, self.eos_id) if modality == "text" else None)

  def _head_inputs(self, head: str, encoded: Encoded) -> tuple:
    return tuple(getattr(encoded, field) for field in takes(self.heads[head]))

  def _apply(
    self,
    module: nn.Module,
    variables: Variables,
    kind: str,
    name: str,
    inputs: tuple,
    train: bool,
    key: jax.Array | None,
    **options: Any,
  ) -> tuple[Any, dict]:
    params = variables["params"][kind].get(name, {})
    stats = variables["batch_stats"][kind].get(name)
    if f"{kind}/{name}" in self.frozen:
      params, train = jax.lax.stop_gradient(params), False
    for part, owner in (self.shared.get(name, {}) if kind == "heads" else {}).items():
      params = {**params, part: variables["params"]["heads"][owner][part]}
    own = {"params": params, **({"batch_stats": stats} if stats else {})}
    scope = jax.named_scope(f"{kind}.{name}")  # how a compiled program says whose an instruction is
    if not train:
      with scope:
        return module.apply(own, *inputs, train=False, **options), stats or {}
    rngs = {"dropout": key} if key is not None else None
    try:
      with scope:
        outputs, new = module.apply(own, *inputs, train=True, rngs=rngs, mutable=["batch_stats"], **options)
    except UserError as error:
      raise UserError(f"config.{kind}.{name}: {error}") from None
    return outputs, new.get("batch_stats", {})


def build_model(config: Mapping, vocab_size: int | None = None) -> Model:
  """The model of a config: `config.towers`, `config.heads`, views of `config.data`.

  Raises UserError for a tower of no known modality, a head of no known tower, ids that are not the tokenizer's, or
  options the encoder or head does not have.
  """
  views, ids = config["data"]["views"], config["data"]["token_ids"]
  towers, modality_of_tower = {}, {}
  for name, options in config["towers"].items():
    options = {**_of_data(name, options, config), **options}
    modality = options.pop("modality", name)
    choose(modality, views, f"config.towers.{name}.modality")
    if modality == "text":
      if vocab_size is not None and options.setdefault("vocab_size", vocab_size) < vocab_size:
        raise UserError(
          f"config.towers.{name}.vocab_size is {options['vocab_size']}, but the tokenizer has "
          f"{vocab_size} pieces; leave the key out to use the tokenizer's"
        )
      if options.get("eos_id") not in (None, ids["eos"]):
        raise UserError(
          f"config.towers.{name}.eos_id is {options['eos_id']}, but a text ends with "
          f"config.data.token_ids.eos={ids['eos']}; leave the key out to pool there"
        )
    towers[name] = build_encoder(options)
    modality_of_tower[name] = modality
  heads, shared, sources = {}, {}, sources_of(config)
  for name, options in config["heads"].items():
    options = {key: value for key, value in options.items() if key not in ("tower", "of")}
    shared[name] = dict(options.pop("shared", {}))
    heads[name] = build_head(options, f"config.heads.{name}")
  tower_of_head = {name: _root(name, sources) for name in heads}
  head_of_head = {name: source for name, (kind, source) in sources.items() if kind == "heads"}
  for name, source in head_of_head.items():
    if lacking := set(takes(heads[name])) - gives(heads[source]):
      kind = config["heads"][name]["name"]
      raise UserError(
        f"config.heads.{name}.of: a {kind!r} reads {' and '.join(sorted(lacking))}, which the head "
        f"{source!r} does not give; name another head, or another kind of this one"
      )
  for name, parts in shared.items():
    for part, owner in parts.items():
      choose(owner, [other for other in heads if not shared[other]], f"config.heads.{name}.shared.{part}")
  shared = {name: parts for name, parts in shared.items() if parts}
  return Model(
    towers, heads, tower_of_head, modality_of_tower, ids["pad"], ids["eos"], shared=shared, head_of_head=head_of_head
  )


def sources_of(config: Mapping) -> dict[str, tuple[str, str]]:
  """Head -> ("towers" or "heads", what it reads there); raises UserError for what is not there."""
  return {
    name: _source_of(name, options, config["towers"], config["heads"]) for name, options in config["heads"].items()
  }


def _source_of(name: str, options: Mapping[str, Any], towers: Mapping, heads: Mapping) -> tuple[str, str]:
  tower, source = options.get("tower"), options.get("of")
  where = f"config.heads.{name}"
  if source is None:
    return "towers", choose(tower or "", towers, f"{where}.tower")
  if tower is not None:
    raise UserError(f"{where}: tower={tower!r} and of={source!r}; a head reads one of the two, leave the other out")
  choose(source, [*towers, *(other for other in heads if other != name)], f"{where}.of")
  if source in towers and source in heads:
    raise UserError(f"{where}.of: {source!r} is a tower and a head; write tower={source!r}, or rename the head")
  return ("towers" if source in towers else "heads"), source


def _root(head: str, sources: Mapping[str, tuple[str, str]]) -> str:
  """The tower at the end of what a head reads; raises UserError where heads read each other in a cycle."""
  line, kind, source = [head], *sources[head]
  while kind == "heads":
    if source in line:
      raise UserError(f"config.heads.{head}.of: {' of '.join([*line, source])} is a cycle; let one read a tower")
    line.append(source)
    kind, source = sources[source]
  return source


def complete_config(config: Mapping) -> dict[str, Any]:
  """`config` with every option of its towers, heads and optimizer written out: what a checkpoint says of its run.

  So a default that changes later does not change a model that was trained before, nor how it is trained on.
  """
  towers = {
    name: complete({**_of_data(name, options, config), **options}) for name, options in config["towers"].items()
  }
  heads = {name: complete(head) for name, head in config["heads"].items()}
  optimizer = optim.options_of(config["optimizer"].get("name", "adamw")) | dict(config["optimizer"])
  return {**config, "towers": towers, "heads": heads, "optimizer": optimizer}


def _of_data(name: str, options: Mapping[str, Any], config: Mapping) -> dict[str, Any]:
  """Options of a tower whose default is what config.data says."""
  return {"max_length": config["data"]["text_length"]} if options.get("modality", name) == "text" else {}


def _check_shared(heads: Mapping[str, Mapping], name: str, part: str, owner: str) -> None:
  where = f"config.heads.{name}.shared.{part}"
  choose(part, heads[name], where)
  choose(part, heads[owner], f"{where}={owner!r}")
  own, other = (jax.tree.map(lambda leaf: leaf.shape, heads[head][part]) for head in (name, owner))
  if own != other:
    raise UserError(f"{where}: the {part!r} of {owner!r} has other parameters; give both heads the same options")


def _file(variables: Variables, kind: str, name: str, made: Mapping) -> None:
  for collection in ("params", "batch_stats"):
    if made.get(collection):
      variables[collection][kind][name] = made[collection]


def _with(stats: dict, kind: str, name: str, new: Mapping) -> dict:
  return {**stats, kind: {**stats[kind], name: new}} if new else stats
