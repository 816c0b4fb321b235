"""Towers and heads, the nodes of a method's graph: from views to named embeddings.

An embedding is named "view/head" or "view/head@momentum". A tower encodes the views of its modality, or reads the
tokens of other towers: `fusion=dict(reads=("text", "image"), name="fusion_transformer", ...)`, and then the name
says what each of them encodes: "fusion(text[0], image[0])/match"; of another example, drawn, with a "~"
(objectives/drawn_pairs.py). A head reads a tower, or another head: a
predictor is `predictor=dict(of="image_ssl", name="mlp", ...)`. The online and the momentum branch are
the same Flax modules applied to other variables, and the momentum branch has those that its embeddings
need: a predictor whose "@momentum" no term names is in the online branch only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax

from mmcontrast.encoders import Encoded, build_encoder, complete
from mmcontrast.encoders.dropout import per_example
from mmcontrast.encoders.heads import build_head, gives, gives_tokens, gives_weights, keeps_places, keeps_tokens, takes
from mmcontrast.encoders.lowering import by_batch
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.graph import first_read, reads_of, root_of, same_as_of, sources_of
from mmcontrast.objectives.embedding_path import EmbeddingPath, Source, parse_embedding
from mmcontrast.optimization import optim
from mmcontrast.parameter_paths import parameter_paths

Draw = Callable[[Source, Encoded, Mapping[str, Encoded]], Encoded]
Variables = dict[str, Any]  # {"params": {"towers", "heads"}, "batch_stats": {"towers", "heads"}}


@dataclasses.dataclass(frozen=True)
class Model:
  """The modules of a run and how they are wired.

  Attributes:
    towers: tower name -> encoder module.
    heads: head name -> head module.
    tower_of_head: head name -> name of the tower that it reads, itself or through other heads.
    modality_of_tower: tower name -> modality ("image", "text"), of the towers that encode views.
    frozen: "towers/image", "heads/text_joint": parts that run as in evaluation (running batch
      statistics, no dropout) and receive no gradient.
    shared: head name -> {one of its submodules: the head, or "towers/NAME", whose parameters it uses instead of its
      own}.
    head_of_head: head name -> the head that it reads, of those that do not read a tower.
    reads: tower name -> the towers whose tokens it reads, of the towers that encode no view.
    same_as: tower name -> the tower whose parameters it is made of, to read another modality with them.
  """

  towers: dict[str, nn.Module]
  heads: dict[str, nn.Module]
  tower_of_head: dict[str, str]
  modality_of_tower: dict[str, str]
  frozen: frozenset[str] = frozenset()
  shared: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
  head_of_head: Mapping[str, str] = dataclasses.field(default_factory=dict)
  reads: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  same_as: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def head_dims(self) -> dict[str, int]:
    """Head -> length of its vectors (without a token's weight), of the heads that say so."""
    return {name: head.dim for name, head in self.heads.items() if hasattr(head, "dim")}

  def init(self, key: jax.Array, views: Mapping[str, Inputs]) -> Variables:
    """Initial variables of the online branch.

    Args:
      key: a PRNG key.
      views: modality -> one view, its values and their mask with a leading batch axis (zeros will do).
    """
    variables: Variables = {"params": {"towers": {}, "heads": {}}, "batch_stats": {"towers": {}, "heads": {}}}
    encoded: dict[str, Encoded] = {}
    order = {name: number for number, name in enumerate(sorted(self.towers))}
    # What a tower reads, and whose parameters it takes, before it.
    for name in sorted(order, key=lambda name: (self._depth(name), name in self.same_as, name)):
      tower, tower_key = self.towers[name], jax.random.fold_in(key, order[name])
      if name in self.reads:
        inputs = self._read_by(name, [encoded[read] for read in self.reads[name]])
      else:
        view = views[self.modality_of_tower[name]]
        inputs = view.arguments
      if name in self.same_as:
        encoded[name] = self._apply(tower, variables, "towers", name, inputs, False, None)[0]
        continue
      try:
        encoded[name], made = tower.init_with_output(tower_key, *inputs, train=False)
        if name not in self.reads:
          encoded[name] = encoded[name].replace(boxes=view.boxes)
      except UserError as error:
        raise UserError(f"config.towers.{name}: {error}") from None
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
        _check_shared(variables["params"], name, part, owner)
        variables["params"]["heads"][name] = {
          key: tree for key, tree in variables["params"]["heads"][name].items() if key != part
        }
    return variables

  def encode(
    self,
    variables: Variables,
    tower: str,
    inputs: Inputs,
    *,
    train: bool = False,
    key: jax.Array | None = None,
    pooled_only: bool = False,
  ) -> tuple[Encoded, dict]:
    """One view through one tower. Returns (Encoded, new batch statistics of the tower).

    `pooled_only`: tokens are not wanted, so that encoders which can (POOLS_ALONE) need not compute them.
    """
    module = self.towers[tower]
    options = {"pooled_only": True} if pooled_only and getattr(module, "POOLS_ALONE", False) else {}
    made, stats = self._apply(module, variables, "towers", tower, inputs.arguments, train, key, **options)
    return made.replace(boxes=inputs.boxes), stats

  def fuse(
    self,
    variables: Variables,
    tower: str,
    encoded: Iterable[Encoded],
    *,
    train: bool = False,
    key: jax.Array | None = None,
    pooled_only: bool = False,
  ) -> tuple[Encoded, dict]:
    """What the towers made that `tower` reads, in the order of `reads`, through it. Returns (Encoded, new batch
    statistics of the tower). `pooled_only` as of `encode`."""
    module = self.towers[tower]
    options = {"pooled_only": True} if pooled_only and getattr(module, "POOLS_ALONE", False) else {}
    return self._apply(module, variables, "towers", tower, self._read_by(tower, encoded), train, key, **options)

  def _read_by(self, tower: str, encoded: Iterable[Encoded]) -> tuple[Encoded, ...]:
    """What a tower reads; raises UserError where one of the others makes no tokens."""
    inputs = tuple(encoded)
    for name, one in zip(self.reads[tower], inputs, strict=True):
      if one.tokens is None:
        made = ", ".join(sorted(one.fields))
        raise UserError(f"config.towers.{tower}.reads: tower {name!r} makes no tokens, only {made}; name one that does")
    return inputs

  def project(
    self, variables: Variables, head: str, encoded: Encoded, *, train: bool = False, key: jax.Array | None = None
  ) -> tuple[Encoded, dict]:
    """What the head's source made, a tower or another head, through that head only. Returns (Encoded, new batch
    statistics of the head)."""
    inputs = self._head_inputs(head, encoded)
    found, stats = self._apply(self.heads[head], variables, "heads", head, inputs, train, key)
    if keeps_places(self.heads[head]):
      found = found.replace(grid=encoded.grid, places=encoded.places)
    found = found.replace(hidden=encoded.hidden if keeps_tokens(self.heads[head]) else None)
    return found.replace(losses={**encoded.losses, **found.losses}), stats

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

  def _depth(self, tower: str) -> int:
    """How many towers stand between a tower and a view."""
    return 1 + max(map(self._depth, self.reads[tower])) if tower in self.reads else 0

  def node_of(self, node: str) -> str:
    """What a tower or a head encodes: a modality, or the name of a tower that reads others."""
    tower = self.tower_of_head.get(node, node)
    return self.modality_of_tower.get(tower, tower)

  @property
  def node_of_head(self) -> dict[str, str]:
    """Head -> the modality of the tower that it reads, or the name of a tower that reads others."""
    return {head: self.node_of(head) for head in self.tower_of_head}

  @property
  def made_by_head(self) -> dict[str, frozenset[str]]:
    """Head -> the fields of `Encoded` that it fills."""
    return {name: gives(head) for name, head in self.heads.items()}

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
    views: Mapping[str, Inputs],
    names: Iterable[str],
    *,
    train: bool,
    key: jax.Array | None = None,
    seeds: jax.Array | None = None,
    draw: Draw | None = None,
  ) -> tuple[dict[str, Encoded], dict]:
    """The named embeddings of one branch.

    Args:
      variables: of that branch.
      views: set of views -> values [B, V, ...] and mask, of all its views.
      names: embedding names of the branch; "@momentum" is only part of the name here.
      train: batch statistics are those of the batch, and dropout is on.
      key: PRNG key for dropout; view v of tower t uses the same key in every branch.
      seeds: [B] uint32; with them an example's dropout depends on its own seed and the key only.
      draw: puts drawn examples in the place of the examples themselves (drawn_pairs.Drawer), for names that say so.
    Returns:
      ({name: what its head made of it}, new batch statistics). A tower sees its views one after the
      other, as separate batches, each updating the running statistics; so does a head, once a view
      however many heads read it. Each node is computed once, and only those that `names` need.
    """
    paths = {name: parse_embedding(name) for name in names}
    stats = variables["batch_stats"]
    embeddings = {}
    encoded: dict[tuple[str, Source], Encoded] = {}
    nodes = self._nodes(paths.values())
    with_tokens = {(self.tower_of_head[p.head], p.source) for p in paths.values() if self.needs_tokens(p.head)}
    with_tokens |= {
      (read, inner) for tower, source in nodes for read, inner in zip(self.reads.get(tower, ()), source.inputs)
    }
    for number, (tower, source) in enumerate(nodes):
      view_key = None if key is None else jax.random.fold_in(key, number)
      current = {**variables, "batch_stats": stats}
      with per_example(seeds):
        if source.inputs:
          inputs = [encoded[read, inner.undrawn] for read, inner in zip(self.reads[tower], source.inputs)]
          inputs = [draw(s, x, embeddings) if s.drawn else x for s, x in zip(source.inputs, inputs)]
          alone = (tower, source) not in with_tokens
          made_by_tower, new = self.fuse(current, tower, inputs, train=train, key=view_key, pooled_only=alone)
        else:
          view = views[source.views].view(source.view)
          made_by_tower, new = self.encode(current, tower, view, train=train, key=view_key)
      encoded[tower, source] = made_by_tower
      stats = _with(stats, "towers", self.same_as.get(tower, tower), new)
      made: dict[str, Encoded] = {}
      for name, path in paths.items():
        if (self.tower_of_head[path.head], path.source) == (tower, source):
          for head in self._line(path.head):
            if head not in made:
              read = made.get(self.head_of_head.get(head), made_by_tower)
              current = {**variables, "batch_stats": stats}
              with per_example(seeds):
                made[head], new = self.project(current, head, read, train=train, key=view_key)
              stats = _with(stats, "heads", head, new)
          embeddings[name] = made[path.head]
    return embeddings, stats

  def branch(self, variables: Variables, names: Iterable[str]) -> Variables:
    """The part of `variables` that the embeddings `names` need: what a momentum branch copies."""
    paths = [parse_embedding(name) for name in names]
    heads = {head for p in paths for head in self._line(p.head)}
    owners = {owner for head in heads for owner in self.shared.get(head, {}).values()}
    towers = {self.same_as.get(tower, tower) for tower, _ in self._nodes(paths)}
    kept = {"heads": heads | owners, "towers": towers}
    return {
      collection: {kind: {name: tree[kind][name] for name in sorted(kept[kind]) if name in tree[kind]} for kind in kept}
      for collection, tree in variables.items()
    }

  def _nodes(self, paths: Iterable[EmbeddingPath]) -> list[tuple[str, Source]]:
    """The (tower, what it reads) that paths need, each after those that it reads: towers of views first, sorted, so
    that a fusion beside them does not change what they draw at random."""
    of_views: set[tuple[str, Source]] = set()
    fusions: dict[tuple[str, Source], None] = {}

    def add(tower: str, source: Source) -> None:
      if not source.inputs:
        of_views.add((tower, source))
        return
      for read, inner in zip(self.reads[tower], source.inputs, strict=True):
        add(read, inner.undrawn)
      fusions.setdefault((tower, source))

    for path in sorted(paths):
      add(self.tower_of_head[path.head], path.source)
    return [*sorted(of_views), *fusions]

  def shared_parts(self, params: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    """What a head has of others: submodule -> its part of `params`, or of a tree like them."""
    of = self.shared.get(name, {}) if kind == "heads" else {}
    return {part: _owned(params, owner)[part] for part, owner in of.items()}

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
    name = self.same_as.get(name, name) if kind == "towers" else name
    params = variables["params"][kind].get(name, {})
    stats = variables["batch_stats"][kind].get(name)
    if f"{kind}/{name}" in self.frozen:
      params, train = jax.lax.stop_gradient(params), False
    params = {**params, **self.shared_parts(variables["params"], kind, name)}
    own = {"params": params, **({"batch_stats": stats} if stats else {})}
    scope = jax.named_scope(f"{kind}.{name}")  # how a compiled program says whose an instruction is
    if not train:
      with scope:
        return _by_batch(module.apply(own, *inputs, train=False, **options)), stats or {}
    rngs = {"dropout": key} if key is not None else None
    try:
      with scope:
        outputs, new = module.apply(own, *inputs, train=True, rngs=rngs, mutable=["batch_stats"], **options)
    except UserError as error:
      raise UserError(f"config.{kind}.{name}: {error}") from None
    return _by_batch(outputs), new.get("batch_stats", {})


def build_model(config: Mapping, vocab_size: int | None = None) -> Model:
  """The model of a config: `config.towers`, `config.heads`, views of `config.data`.

  Raises UserError for a tower of no known modality, a head of no known tower, ids that are not the tokenizer's, or
  options the encoder or head does not have.
  """
  towers, modality_of_tower, reads, same_as = {}, {}, reads_of(config), same_as_of(config)
  for name, options in config["towers"].items():
    modality = options.get("modality", name)
    options = config["towers"][same_as[name]] | {"modality": modality} if name in same_as else options
    options = {**_of_data(name, options, config), **{key: value for key, value in options.items() if key != "reads"}}
    if name in reads:
      towers[name] = build_encoder(options, f"config.towers.{name}")
      continue
    modality = options.pop("modality", name)
    choose(modality, MODALITIES, f"config.towers.{name}.modality")
    MODALITIES[modality].check_tower(options, config["data"], vocab_size, f"config.towers.{name}")
    towers[name] = build_encoder(options, f"config.towers.{name}")
    modality_of_tower[name] = modality
  heads, shared, sources = {}, {}, sources_of(config)
  tower_of_head = {name: root_of(name, sources) for name in config["heads"]}
  for name, options in config["heads"].items():
    options = {key: value for key, value in options.items() if key not in ("tower", "of")}
    shared[name] = dict(options.pop("shared", {}))
    if options.get("name") == "words":
      shared[name] |= _of_texts(options, first_read(tower_of_head[name], reads), towers, f"config.heads.{name}")
    heads[name] = build_head(options, f"config.heads.{name}")
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
      if owner.startswith("towers/") and config["heads"][name].get("tied"):
        continue
      choose(owner, [other for other in heads if not shared[other]], f"config.heads.{name}.shared.{part}")
  shared = {name: parts for name, parts in shared.items() if parts}
  return Model(
    towers,
    heads,
    tower_of_head,
    modality_of_tower,
    shared=shared,
    head_of_head=head_of_head,
    reads=reads,
    same_as=same_as,
  )


def complete_config(config: Mapping) -> dict[str, Any]:
  """`config` with every option of its towers, heads and optimizer written out: what a checkpoint says of its run.

  So a default that changes later does not change a model that was trained before, nor how it is trained on.
  """
  towers = {
    name: dict(options) if options.get("same_as") else complete({**_of_data(name, options, config), **options})
    for name, options in config["towers"].items()
  }
  heads = {name: complete(head) for name, head in config["heads"].items()}
  optimizer = optim.options_of(config["optimizer"].get("name", "adamw")) | dict(config["optimizer"])
  return {**config, "towers": towers, "heads": heads, "optimizer": optimizer}


def _of_data(name: str, options: Mapping[str, Any], config: Mapping) -> dict[str, Any]:
  """Options of a tower whose default is what config.data says."""
  modality = None if options.get("reads") else MODALITIES.get(options.get("modality", name))
  return modality.tower_options(config["data"]) if modality else {}


def _of_texts(options: dict[str, Any], tower: str, towers: Mapping[str, nn.Module], where: str) -> dict[str, str]:
  """Gives a head of words the vocabulary of the text tower whose tokens it is of; returns what it shares with it."""
  vocabulary = getattr(towers[tower], "vocab_size", None)
  if vocabulary is None:
    texts = [name for name, module in towers.items() if hasattr(module, "vocab_size")]
    raise UserError(
      f"{where}: a 'words' head is of the tokens of texts, and tower {tower!r} has no words"
      + (f"; let a fusion read {texts[0]!r} first, reads=({texts[0]!r}, {tower!r})" if texts else "")
    )
  if options.get("vocab_size") is None:
    options["vocab_size"] = vocabulary
  if options["vocab_size"] < vocabulary:
    raise UserError(
      f"{where}.vocab_size is {options['vocab_size']}, but tower {tower!r} has {vocabulary} words; leave the key out "
      "to have logits for all of them"
    )
  return {"token_embedding": f"towers/{tower}"} if options.get("tied") else {}


def _by_batch(outputs: Any) -> Any:
  """What a module made, each array cut between devices by examples, as the loss takes it."""
  return jax.tree.map(by_batch, outputs)


def _owned(params: Mapping[str, Any], owner: str) -> Mapping[str, Any]:
  """The parameters of a head, or of "towers/NAME"."""
  kind, _, name = owner.rpartition("/")
  return params[kind or "heads"][name]


def _check_shared(params: Mapping[str, Any], name: str, part: str, owner: str) -> None:
  where, shares = f"config.heads.{name}.shared.{part}", _owned(params, owner)
  choose(part, params["heads"][name], where)
  choose(part, shares, f"{where}={owner!r}")
  own, other = (jax.tree.map(lambda leaf: leaf.shape, found[part]) for found in (params["heads"][name], shares))
  if own != other and owner.startswith("towers/"):
    table, width = shares[part]["embedding"].shape, params["heads"][name][part]["embedding"].shape[1]
    raise UserError(
      f"config.heads.{name}.tied: tokens of {width} numbers do not go with the embedding of "
      f"{owner.partition('/')[2]!r}, {table[0]} words of {table[1]}; make its tower as wide, or set tied=False"
    )
  if own != other:
    differ = _difference(params["heads"][name][part], shares[part])
    raise UserError(
      f"{where}: the {part!r} of {owner!r} has other parameters, {differ}; give both heads the same options"
    )


def _difference(own: Mapping, other: Mapping) -> str:
  """The first parameter of two trees that is not of one shape, in words."""
  a, b = (dict(zip(parameter_paths(tree), (leaf.shape for leaf in jax.tree.leaves(tree)))) for tree in (own, other))
  path = next(path for path in (*a, *b) if a.get(path) != b.get(path))
  theirs, ours = (" x ".join(map(str, of[path])) if path in of else "nothing" for of in (b, a))
  return f"{path} {theirs} where this head has {ours}"


def _file(variables: Variables, kind: str, name: str, made: Mapping) -> None:
  for collection in ("params", "batch_stats"):
    if made.get(collection):
      variables[collection][kind][name] = made[collection]


def _with(stats: dict, kind: str, name: str, new: Mapping) -> dict:
  return {**stats, kind: {**stats[kind], name: new}} if new else stats
