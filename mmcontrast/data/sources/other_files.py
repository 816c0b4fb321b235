"""Files that are no table of rows, whatever their names say: told by how they begin."""

from __future__ import annotations

from mmcontrast.data.sources import files
from mmcontrast.errors import UserError

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_BEGINNINGS = {
  b"\x1f\x8b": "is compressed, and its rows are read one by one; unpack it",
  b"PK\x03\x04": "is a ZIP archive, as workbooks of Excel are; unpack it, or save the sheet as CSV",
  b"PAR1": "is Parquet; give parquet:{path}",
  b"ARROW1": "is Arrow, which is not read; write Parquet instead",
  b"SQLite format 3": "is a database of SQLite; export the table as CSV",
  b"version https://git-lfs": "is a pointer of Git LFS, not the data: git lfs pull",
  b"<!doctype": "is a web page, not the data: download it again, by the address of the file itself",
  b"<html": "is a web page, not the data: download it again, by the address of the file itself",
}
_MARK = b"\xef\xbb\xbf"  # of UTF-8
_MOST = 64


def refuse_other_files(path: str, kind: str) -> None:
  """Raises UserError for a file that cannot be of `kind`, "csv" or "jsonl", and says what it is and what to do."""
  if path.endswith(_COMPRESSED):
    raise UserError(f"{path}: {_BEGINNINGS[bytes((0x1F, 0x8B))]}")
  with files.open_binary(path) as file:
    start = file.read(_MOST).removeprefix(_MARK).lstrip()
  for beginning, said in _BEGINNINGS.items():
    if start[: len(beginning)].lower() == beginning.lower():
      raise UserError(f"{path}: {said.format(path=path)}")
  if kind == "csv" and start.startswith((b'{"', b'[{"')):
    todo = f"give jsonl:{path}" if start.startswith(b"{") else "write one object a line, and give jsonl:PATH"
    raise UserError(f"{path}: is JSON, not CSV; {todo}")
