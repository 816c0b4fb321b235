"""Stand-ins for Google's and Amazon's object stores, on loopback: gcp-storage-emulator and moto's server.

    with loopback_stores.serving() as environment:
      ...  # what speaks to them needs these variables

Each is a process of its own. Google's does what the emulator leaves out and TensorStore relies on: a write that asks
for a generation (ifGenerationMatch) fails where the object has another, and a read says which one it has.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

BUCKET = "bucket"


@contextlib.contextmanager
def serving():
  """Both, each with the bucket BUCKET, for as long as the block lasts; gives the variables of the environment."""
  gs, s3 = _free_port(), _free_port()
  commands = [
    [sys.executable, __file__, str(gs)],
    [str(pathlib.Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(s3)],
  ]
  quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
  with contextlib.ExitStack() as stack:
    for command in commands:
      child = stack.enter_context(subprocess.Popen(command, **quiet))
      stack.callback(child.kill)
    _wait(f"http://127.0.0.1:{gs}/storage/v1/b")
    _wait(f"http://127.0.0.1:{s3}/")
    request = urllib.request.Request(f"http://127.0.0.1:{s3}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request).read()
    yield {
      "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{gs}",
      "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
      "AWS_ACCESS_KEY_ID": "test",
      "AWS_SECRET_ACCESS_KEY": "test",
      "AWS_DEFAULT_REGION": "us-east-1",
      "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def in_this_process():
  """`serving`, with its variables in the environment and file systems of fsspec that see them; gives the variables."""
  import fsspec

  from mmcontrast import object_stores

  with serving() as variables:
    before = {name: os.environ.get(name) for name in (*variables, *_MADE_OF_THEM)}
    os.environ.update(variables)
    try:
      yield variables
    finally:
      for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
      object_stores.file_system.cache_clear()
      for scheme in ("gs", "s3"):
        fsspec.get_filesystem_class(scheme).clear_instance_cache()


_MADE_OF_THEM = ("TENSORSTORE_GCS_HTTP_URL", "GOOGLE_AUTH_TOKEN_FOR_TESTING", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT")


def _free_port() -> int:
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    return one.getsockname()[1]


def _wait(address: str) -> None:
  for _ in range(600):
    with contextlib.suppress(OSError):
      urllib.request.urlopen(address, timeout=5).read()
      return
    time.sleep(0.05)
  raise TimeoutError(f"{address}: no answer")


def _serve_google(port: int) -> None:
  import http

  from gcp_storage_emulator.exceptions import NotFound
  from gcp_storage_emulator.handlers import objects

  write, read = objects.insert, objects.download

  def generation(storage, bucket: str, name: str) -> str:
    try:
      return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
      return "0"

  def insert(request, response, storage, *arguments, **options):
    wanted = request.query.get("ifGenerationMatch")
    name = request.query.get("name", [None])[0] or ((request.data or {}).get("meta") or {}).get("name")
    if wanted and generation(storage, request.params["bucket_name"], name) != wanted[0]:
      response.status = http.HTTPStatus.PRECONDITION_FAILED
      return
    write(request, response, storage, *arguments, **options)

  def download(request, response, storage, *arguments, **options):
    has = generation(storage, request.params["bucket_name"], request.params["object_id"])
    if has != "0" and has in request.query.get("ifGenerationNotMatch", []):
      response.status = http.HTTPStatus.NOT_MODIFIED
      return
    read(request, response, storage, *arguments, **options)
    response["x-goog-generation"] = has

  objects.insert, objects.download = insert, download  # before the server takes its table of them
  from gcp_storage_emulator.server import create_server

  create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET).run()


if __name__ == "__main__":
  _serve_google(int(sys.argv[1]))
