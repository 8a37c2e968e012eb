"""A stand-in for Google Cloud Storage on this machine, and commands that use it."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).parents[2]
NAME = "kdjax-test"
_SERVE = f"""
import http.server, logging, sys
# Orbax opens more connections at once than wait by default.
http.server.HTTPServer.request_queue_size = 256
from gcp_storage_emulator.server import create_server
logging.disable(logging.CRITICAL)
server = create_server(
    "127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="{NAME}"
)
server.run()
"""


@contextlib.contextmanager
def serve():
    """Serve an empty bucket; the environment of programs that use it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-c", _SERVE, str(port)], **quiet)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert server.poll() is None
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/storage/v1/b", timeout=5).read()
                break
            time.sleep(0.2)
        yield {
            "STORAGE_EMULATOR_HOST": url,
            # Of array_record.
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "GOOGLE_CLOUD_PROJECT": "none",
            "GCE_METADATA_HOST": "127.0.0.1:1",
            "NO_GCE_CHECK": "true",
            # Asks the control service of Google, over an encrypted connection.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }
    finally:
        server.kill()
        server.wait()


def environment_of(bucket, machine):
    """Variables of a process on one machine; its cache is a folder of that name."""
    return {
        **os.environ,
        **bucket,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(machine),
        "JAX_NUM_CPU_DEVICES": "1",
    }
