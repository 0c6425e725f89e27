"""What the suites run: the server, a registry, a relay before it, and weights that no engine loads."""
import hashlib
import http.client
import http.server
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

TIMEOUT = 120


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Suite(unittest.TestCase):
    """Tests of the binary that the command line names, in a folder of their own, with numbers from a seed that it may name."""

    @classmethod
    def setUpClass(cls):
        cls.binary = sys.argv[1]
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
        print(f"seed {seed}", file=sys.stderr)
        cls.random = random.Random(seed)
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.work = Path(cls.folder.name)

    def server(self, models, **settings):
        server = Server(self.binary, models, **settings)
        self.addCleanup(server.stop)
        return server

    def registry(self, name):
        registry = Registry(self.work / name)
        self.addCleanup(registry.stop)
        return registry


def gguf(n_bytes, random, kind=1):
    """A file of exactly so many bytes: one matrix, F16 (`kind` 1) or F32 (0), whose weights are small numbers."""
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()  # noqa: E731
    cols, item = 1024, (4, 2)[kind]
    keys = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    keys += text("general.file_type") + struct.pack("<II", 4, kind)
    rows = (n_bytes - 4096) // (cols * item)

    def header(pad):
        key = text("pad") + struct.pack("<I", 8) + text("x" * pad)
        tensor = text("blk.0.ffn_up.weight") + struct.pack("<IQQIQ", 2, cols, rows, kind, 0)
        return b"GGUF" + struct.pack("<IQQ", 3, 1, 3) + keys + key + tensor

    data = rows * cols * item
    head = header(n_bytes - data - len(header(0)))
    assert len(head) % 32 == 0, len(head)
    # Random bytes below the sign and the upper exponent: all finite.
    words = random.randbytes(data) if kind else struct.pack("<f", random.random()) * (data // 4)
    if kind:
        words = bytearray(words)
        words[1::2] = bytes(b & 0x3B for b in words[1::2])
    return head + bytes(words)


def float8(folder):
    """The files of a checkpoint, its weights in one file, in which the matrices of layers are 8-bit floats with scales of blocks."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if ".safetensors" not in path.name}
    header, data = {}, bytearray()

    def add(name, dtype, shape, content):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data.extend(content)

    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        begin = 8 + struct.unpack("<Q", content[:8])[0]
        for name, entry in json.loads(content[8:begin]).items():
            if "_proj" in name:
                rows, columns = entry["shape"]
                blocks = [-(-rows // 128), -(-columns // 128)]
                # Ones, times a 64th.
                add(name, "F8_E4M3", [rows, columns], b"\x38" * (rows * columns))
                add(f"{name}_scale_inv", "F32", blocks, struct.pack("<f", 1 / 64) * (blocks[0] * blocks[1]))
            elif name != "__metadata__":
                start, end = entry["data_offsets"]
                add(name, entry["dtype"], entry["shape"], content[begin + start:begin + end])
    text = json.dumps(header).encode()
    return files | {"model.safetensors": struct.pack("<Q", len(text)) + text + data}


def wait_for(address, process):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        assert process.poll() is None, "it has ended"
        try:
            return urllib.request.urlopen(address, timeout=5).read()
        except urllib.error.HTTPError:
            return b""
        except OSError:
            time.sleep(0.002)
    raise AssertionError(f"{address} does not answer")


def valid_blobs(models):
    """Digests of the blobs that have their name; fails if one has other bytes."""
    found = set()
    for path in (Path(models) / "blobs").glob("sha256-*"):
        name = path.name.removeprefix("sha256-")
        if len(name) == 64:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == name, f"{path.name} has other bytes"
            found.add(name)
    return found


class Registry:
    """Debian's docker-registry over plain http."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder = folder
        self.port = free_port()
        config = folder / "config.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}\n"
                          f"http: {{addr: '127.0.0.1:{self.port}'}}\n")
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(f"http://127.0.0.1:{self.port}/v2/", self.process)

    def request(self, method, path):
        headers = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v2/{path}", headers=headers, method=method)
        return urllib.request.urlopen(request, timeout=TIMEOUT)

    def manifest(self, repository, tag):
        """A manifest's bytes, and the digest that the registry knows it by."""
        reply = self.request("GET", f"{repository}/manifests/{tag}")
        return reply.read(), reply.headers["Docker-Content-Digest"]

    def folder_bytes(self):
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Relay:
    """Stands before a registry: counts bytes, notes which ranges of blobs are asked for, and slows answers down."""

    def __init__(self, target):
        self.sent = self.received = 0
        self.rate = None
        self.asked = []
        self.lock = threading.Lock()
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self):
                length = int(self.headers.get("Content-Length") or 0)
                headers = dict(self.headers.items())
                body = self.rfile if length else None
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body, length = b"".join(self.chunks()), 0
                    headers.pop("Transfer-Encoding")
                upstream = http.client.HTTPConnection("127.0.0.1", target, timeout=TIMEOUT)
                try:
                    if self.command == "GET" and "/blobs/" in self.path:
                        first = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]
                        relay.asked.append((self.path, int(first)))
                    upstream.request(self.command, self.path, Reader(body, length) if length else body, headers)
                    with relay.lock:
                        relay.received += length or len(body or b"")
                    answer = upstream.getresponse()
                    self.send_response_only(answer.status, answer.reason)
                    for name, value in answer.getheaders():
                        if name.lower() != "transfer-encoding":
                            self.send_header(name, value)
                    self.end_headers()
                    while self.command != "HEAD" and (piece := answer.read(64 << 10)):
                        self.wfile.write(piece)
                        relay.count(len(piece))
                except OSError:
                    # A client that was killed.
                    self.close_connection = True
                finally:
                    upstream.close()

            def chunks(self):
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = relay

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def count(self, n):
        with self.lock:
            self.sent += n
            if self.rate:
                time.sleep(n / self.rate)

    def limit(self, bytes_per_second):
        self.rate = bytes_per_second

    def unlimit(self):
        self.rate = None

    def start_listing(self):
        self.asked = []
        return self.asked


class Reader:
    """As many bytes of a stream as a request has."""

    def __init__(self, stream, left):
        self.stream, self.left = stream, left

    def read(self, n=-1):
        piece = self.stream.read(min(n, self.left) if n >= 0 else self.left)
        self.left -= len(piece)
        return piece


class Server:
    """The server with a models folder of its own; with `disk_bytes`, on a disk of that size; with `read_only`, on one that cannot be
    written; with `memory_bytes`, on a machine that has so much for it, and that says so once `telling` is set, as it is at the start
    unless `is_silent`; with `trace`, under strace, which writes a file of that name."""

    def __init__(self, binary, models, disk_bytes=None, memory_bytes=None, is_silent=False, read_only=False, trace=None, **settings):
        self.models = Path(models)
        self.models.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        environment = os.environ | {"OLLAMA_HOST": f"127.0.0.1:{self.port}", "OLLAMA_MODELS": str(self.models), "OLLAMA_WGPU_DEVICE": "cpu"} | settings
        command, mounts = [binary, "serve"], []
        if disk_bytes:
            mounts.append(f'mount -t tmpfs -o size={disk_bytes} none "$OLLAMA_MODELS"')
        if read_only:
            mounts.append('mount --bind "$OLLAMA_MODELS" "$OLLAMA_MODELS" && mount -o remount,bind,ro "$OLLAMA_MODELS"')
        if memory_bytes:
            meminfo = self.models.parent / f"meminfo-{self.port}"
            os.mkfifo(meminfo)
            mounts.append(f"mount --bind {meminfo} /proc/meminfo")
        if mounts:
            # Mounts of its own, which go away with the process; without root in a namespace of users.
            user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
            command = ["unshare", *user, "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$0" serve']), binary]
        if trace:
            # As a grandchild: the process that is started is the server's.
            command = ["strace", "-D", "-f", "-y", "-qq", "-o", trace, "-e", "trace=fsync,fdatasync,/^rename,/^mkdir", *command]
        self.telling = threading.Event()
        if not is_silent:
            self.telling.set()
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(f"http://127.0.0.1:{self.port}/", self.process)
        self.start_seconds = time.monotonic() - self.started
        if memory_bytes:
            threading.Thread(target=self.tell_memory, args=(meminfo, memory_bytes), daemon=True).start()
        self.root = Path(f"/proc/{self.process.pid}/root{self.models}") if disk_bytes else self.models

    def memory(self, name):
        """Bytes that `/proc` tells of the process: `VmRSS` (resident), `VmSize` (mapped), ..."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(f"{name}:"))

    def tell_memory(self, meminfo, limit):
        """Answers whoever reads the file, as Linux does: what the process has written is missing. Pages of files that it has only read,
        as weights are, count as available, mapped or not: they are given back on demand."""
        while self.process.poll() is None:
            self.telling.wait()
            with open(meminfo, "w") as reader:
                left = max(limit - self.memory("RssAnon") - self.memory("RssShmem"), 0)
                reader.write(f"MemTotal: {limit >> 10} kB\nMemAvailable: {left >> 10} kB\n")
            # The reader sees the end before the next one begins.
            time.sleep(0.02)

    def request(self, method, path, body=None):
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        return urllib.request.urlopen(request, timeout=TIMEOUT)

    def json(self, method, path, body=None):
        text = self.request(method, path, body).read()
        return json.loads(text) if text else None

    def lines(self, path, body):
        return [json.loads(line) for line in self.request("POST", path, body)]

    def pull(self, name):
        """The lines of a pull over plain http."""
        return self.lines("/api/pull", {"model": name, "insecure": True})

    def push(self, name):
        return self.lines("/api/push", {"model": name, "insecure": True})

    def try_pull(self, name):
        try:
            self.pull(name)
        except (OSError, http.client.HTTPException):
            # It was killed.
            pass

    def upload(self, data):
        status, text = self.try_upload(data)
        assert status in (200, 201), text

    def try_upload(self, data):
        try:
            return self.request("POST", f"/api/blobs/{digest(data)}", data).status, ""
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def create(self, name, request):
        last = self.lines("/api/create", {"model": name} | request)[-1]
        assert last == {"status": "success"}, last

    def generate(self, model, prompt, n=8, **request):
        """The reply of a greedy generation."""
        options = {"temperature": 0, "num_predict": n} | request.pop("options", {})
        return self.json("POST", "/api/generate", {"model": model, "prompt": prompt, "raw": True, "stream": False, "options": options} | request)

    def loaded(self):
        return {m["name"].removesuffix(":latest") for m in self.json("GET", "/api/ps")["models"]}

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
