"""Names that systems and programs leave next to data: never an image, a class, a shard or a table."""

from __future__ import annotations

_NAMES = frozenset({
  "__macosx", "icon\r",  # macOS, in archives and folders; its others begin with a dot
  "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",  # Windows
  "@eadir", "#recycle", "#snapshot", "@__thumb", "@recycle",  # network disks
  "lost+found", "__pycache__",
  "_success", "_metadata", "_common_metadata",  # Spark and Dask, beside the files that they write
})  # fmt: skip


# Of editors, locks and downloads that did not end.
_ENDINGS = ("~", ".part", ".partial", ".crdownload", ".download", ".incomplete", ".aria2", ".gstmp", ".tmp", ".temp",
            ".swp", ".lock", ".bak", ".orig")  # fmt: skip
_OFFICE_LOCK = "~$"  # of an open file, before its name


def is_left_behind(name: str) -> bool:
  """Whether a file or folder of this name (the last part of a path) is of a system, or not whole, and so no data."""
  of_emacs = len(name) > 1 and name[0] == name[-1] == "#"
  return is_of_a_system(name) or of_emacs or name.startswith(_OFFICE_LOCK) or name.lower().endswith(_ENDINGS)


def is_of_a_system(name: str) -> bool:
  """Whether a name is hidden, or one that a system gives to what is no data.

  Hidden is what begins with a dot: .ipynb_checkpoints, ._picture.png, .DS_Store, .git.
  """
  return (name.startswith(".") and name not in (".", "..")) or name.lower() in _NAMES
