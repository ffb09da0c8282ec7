"""A file from the Hugging Face hub: from a stand-in for it, from the cache, and from nowhere.

(What TFDS downloads is tested in test_corpus.py.)
"""

import http.server
import os
import subprocess
import sys
import threading
import time

import pytest

CODE = """
import sys
from gptjax.data.datasets import Offline, hub_file
try:
    print(hub_file("someone/something", "vocab.json").read_text())
except Offline as error:
    print("offline:", error)
"""

COMMIT, ETAG = "0" * 40, "1" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Has one file."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        is_there = "/vocab.json" in self.path or self.path == "/"
        self.send_response(200 if is_there else 404)
        self.send_header("Content-Length", "7")
        self.send_header("ETag", f'"{ETAG}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(b'{"a":0}')


@pytest.fixture
def hub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def printed(endpoint, folder):
    """What a process prints whose hub is there; its seconds. (The library reads that once.)"""
    names = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    names |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=names, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), time.monotonic() - start


@pytest.mark.slow
def test_a_file_is_fetched_once_and_then_found_without_a_network(hub, tmp_path):
    nowhere = "http://127.0.0.1:9"
    words, seconds = printed(nowhere, tmp_path)
    assert words.startswith("offline: ") and "refused" in words and seconds < 30
    assert printed(hub, tmp_path)[0] == '{"a":0}'
    assert printed(nowhere, tmp_path)[0] == '{"a":0}'
