"""Which embeddings of a module are students, which are teachers, and which teacher each student follows."""

from __future__ import annotations

from collections.abc import Sequence

from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding


def across_views(names: Sequence[str]) -> list[tuple[int, int]]:
  """(place of a student, place of a teacher, "@momentum") for each two that are of different views, in order."""
  paths = list(map(parse_embedding, names))
  return [
    (s, t)
    for s, student in enumerate(paths)
    for t, teacher in enumerate(paths)
    if teacher.momentum and not student.momentum and teacher.source.original != student.source.original
  ]


def within_views(names: Sequence[str]) -> list[tuple[int, int]]:
  """(place of a student of a masked version, place of the teacher of its original), in order."""
  paths = list(map(parse_embedding, names))
  return [
    (s, t)
    for s, student in enumerate(paths)
    for t, teacher in enumerate(paths)
    if teacher.momentum and not student.momentum and teacher.source == student.source.original != student.source
  ]


def check_across_views(names: Sequence[str]) -> None:
  """Raises UserError where no student is of another view than a teacher's."""
  if not across_views(names):
    raise UserError(
      f"embeddings: {list(names)} has no student of another view than a teacher's; name teachers, "
      "'image[0]/HEAD@momentum', and students, 'image[1]/HEAD'"
    )
