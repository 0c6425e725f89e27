"""The models folder on bad days: killed at any moment, read only, gone, without room, full of strange files and of very many models.

usage: store.py BINARY [SEED]
"""
import http.client
import json
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
from pathlib import Path

from machines import Suite, digest, float8, gguf, valid_blobs

N_KILLS = int(os.environ.get("OLLAMA_WGPU_TEST_KILLS", 50))
N_MODELS = 20_000
CHECKPOINT = Path(__file__).parents[2] / "target/test-models/checkpoints/llama"


def finished(trace):
    """The calls of a trace, each where it ended; those of renames where they began."""
    begun = {}
    for line in trace.splitlines():
        thread, call = line.split(maxsplit=1)
        if "<unfinished ...>" in call:
            if call.startswith("rename"):
                yield call
            else:
                begun[thread] = call.removesuffix(" <unfinished ...>")
        elif "resumed>" in call:
            if thread in begun:
                yield begun.pop(thread) + call.partition("resumed>")[2]
        else:
            yield call


class Tests(Suite):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.weights = gguf(1 << 20, cls.random)

    def filled(self, name):
        """A server with one model in a folder of its own."""
        server = self.server(self.work / name)
        self.create(server, "base")
        return server

    def create(self, server, name):
        server.upload(self.weights)
        server.create(name, {"files": {"m.gguf": digest(self.weights)}, "system": f"You are {name}."})

    def manifest(self, models, name, text=None):
        """Where a manifest lies; with a text, which is written there."""
        path = Path(models) / "manifests/registry.ollama.ai/library" / name / "latest"
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return path

    def names(self, server):
        return {m["name"].removesuffix(":latest") for m in server.json("GET", "/api/tags")["models"]}

    def until(self, holds, seconds=3):
        """Waits until something holds."""
        end = time.monotonic() + seconds
        while not holds():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def refused(self, server, method, path, body):
        """Status and error of a request that fails, within a second."""
        start = time.monotonic()
        try:
            text = server.request(method, path, body).read().decode()
            last = json.loads(text.splitlines()[-1])
            status, error = 200, last.get("error")
            self.assertIsNotNone(error, f"{path} {body}: {text}")
        except urllib.error.HTTPError as reply:
            status, error = reply.code, json.loads(reply.read() or b"{}").get("error", "")
        self.assertLess(time.monotonic() - start, 1, f"{path} {body}")
        self.assertNotIn(str(self.work), error)
        return status, error

    def test_killed_while_it_changes(self):
        registry = self.registry("registry")
        models = self.work / "killed"
        server = self.filled("killed")
        pushed = f"127.0.0.1:{registry.port}/library/m:v1"
        server.json("POST", "/api/copy", {"source": "base", "destination": pushed})
        self.assertEqual(server.push(pushed)[-1], {"status": "success"})

        def change(server):
            for round in range(1 << 20):
                try:
                    server.lines("/api/create", {"model": f"m{round % 3}", "from": "base", "system": str(round)})
                    server.request("POST", "/api/copy", {"source": f"m{round % 3}", "destination": f"c{round % 2}"}).read()
                    server.request("DELETE", "/api/delete", {"model": f"c{round % 2}"}).read()
                    server.request("DELETE", "/api/delete", {"model": pushed}).read()
                    server.pull(pushed)
                except urllib.error.HTTPError as error:
                    if error.code != 404:
                        raise
                except OSError:
                    return

        for kill in range(N_KILLS):
            worker = threading.Thread(target=change, args=(server,))
            worker.start()
            # Some die while the sweep of their start still runs.
            time.sleep(self.random.random() * 0.4)
            server.kill()
            worker.join()
            server = self.server(models)
            valid_blobs(models)
            listed = self.names(server)
            manifests = [p for p in (models / "manifests").rglob("*") if p.is_file() and not p.name.startswith(".")]
            self.assertTrue(all(p.stat().st_size for p in manifests), "an empty manifest")
            self.assertEqual(len(listed), len(manifests), "a manifest that cannot be read")
            for name in listed:
                server.json("POST", "/api/show", {"model": name})
        server.stop()
        # The sweep takes what a kill left, once it is an hour old.
        hour = time.time() - 3700
        for path in models.rglob("*"):
            os.utime(path, (hour, hour))
        server = self.server(models)
        # It runs beside the first requests.
        until = time.monotonic() + 10
        rest = lambda: [p.name for p in models.rglob("*") if ".tmp-" in p.name or "-partial" in p.name]  # noqa: E731
        while rest() and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(rest(), [])
        self.assertEqual(self.names(server), listed)

    def test_transfers_beside_changes(self):
        """Pushes and pulls of a model that others delete and make at the same time, from two servers on the folder."""
        registry = self.registry("beside")
        server = self.filled("changes")
        other = self.server(server.models)
        name = f"127.0.0.1:{registry.port}/library/m:v1"
        server.json("POST", "/api/copy", {"source": "base", "destination": name})
        self.assertEqual(server.push(name)[-1], {"status": "success"})
        until = time.monotonic() + 3
        done, strange = {}, []

        def repeat(server, what, call):
            while time.monotonic() < until:
                try:
                    last = call(server)
                except urllib.error.HTTPError as error:
                    last = {"error": json.loads(error.read())["error"]}
                is_good = "error" not in last
                done[what, is_good] = done.get((what, is_good), 0) + 1
                # What was taken away under their hands is named; nothing else goes wrong. The registry fails where a tag is read
                # while it is written.
                known = ("not found", "does not exist", '500: {"errors":[{"code":"UNKNOWN"')
                if not is_good and not any(text in last["error"] for text in known):
                    strange.append((what, last["error"]))
                if what in ("make", "delete"):
                    time.sleep(0.03)

        push = lambda server: server.push(name)[-1]  # noqa: E731
        pull = lambda server: server.pull(name)[-1]  # noqa: E731
        make = lambda server: server.lines("/api/create", {"model": name, "from": "base", "system": str(time.monotonic())})[-1]  # noqa: E731
        delete = lambda server: server.request("DELETE", "/api/delete", {"model": name}).read() or {}  # noqa: E731
        work = [(server, "push", push), (other, "push", push), (server, "make", make),
                (other, "delete", delete), (other, "pull", pull), (server, "pull", pull)]
        hands = [threading.Thread(target=repeat, args=hand) for hand in work]
        for hand in hands:
            hand.start()
        for hand in hands:
            hand.join()
        print(f"beside each other: {dict(sorted(done.items()))}", file=sys.stderr)
        self.assertEqual(strange, [])
        for what in ("push", "pull", "make", "delete"):
            self.assertGreater(done.get((what, True), 0), 0, what)
        valid_blobs(server.models)
        for one in (server, other):
            for listed in self.names(one):
                one.json("POST", "/api/show", {"model": listed})
        self.assertIn("base", self.names(server))
        # What the registry has at the end is whole, too.
        fresh = self.server(self.work / "fresh")
        self.assertEqual(fresh.pull(name)[-1], {"status": "success"})
        fresh.json("POST", "/api/show", {"model": name})

    def test_files_are_on_disk_before_they_are_named(self):
        """What is synced when, as the system sees it: so a power cut leaves what a kill leaves."""
        if subprocess.run(["strace", "-o", "/dev/null", "true"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("processes cannot be traced here")
        registry = self.registry("synced")
        name = f"127.0.0.1:{registry.port}/library/m:v1"
        trace = self.work / "trace"
        server = self.server(self.work / "traced", trace=trace)
        self.create(server, "base")
        server.json("POST", "/api/copy", {"source": "base", "destination": name})
        self.assertEqual(server.push(name)[-1], {"status": "success"})
        for model in ("base", name):
            server.json("DELETE", "/api/delete", {"model": model})
        self.assertEqual(server.pull(name)[-1], {"status": "success"})
        server.stop()
        synced, folders, n_blobs, n_manifests = set(), set(), 0, 0
        for line in finished(trace.read_text()):
            if match := re.search(r"f(?:data)?sync\(\d+<(.*?)>\)", line):
                synced.add(match[1])
                folders.discard(match[1])
            elif match := re.search(r'mkdir(?:at)?\(.*"(.*?)".*= 0', line):
                folders.add(os.path.dirname(match[1]))
            elif match := re.search(r'rename.*"(.*?)".*"(.*?)"', line):
                old, new = match[1], match[2]
                if not new.startswith(str(server.models)) or "-partial-" in new:
                    continue
                self.assertIn(old, synced, "a file has its name before it is on disk")
                if "/manifests/" in new:
                    blobs = {folder for folder in folders if folder.endswith("/blobs")}
                    self.assertEqual(blobs, set(), f"{new} names blobs whose names are not on disk")
                    n_manifests += 1
                n_blobs += "/blobs/" in new
                folders.add(os.path.dirname(new))
        ours = {folder for folder in folders if folder.startswith(str(server.models)) and folder != str(server.models)}
        self.assertEqual(ours, set(), "folders that changed last are not on disk")
        self.assertGreaterEqual((n_blobs, n_manifests), (6, 3))

    def test_read_only(self):
        self.filled("fixed").stop()
        server = self.server(self.work / "fixed", read_only=True)
        self.assertEqual(self.names(server), {"base"})
        server.json("POST", "/api/show", {"model": "base"})
        for method, path, body in [
            ("POST", "/api/create", {"model": "n", "from": "base", "stream": False}),
            ("POST", "/api/copy", {"source": "base", "destination": "n"}),
            ("DELETE", "/api/delete", {"model": "base"}),
            ("POST", f"/api/blobs/{digest(b'x')}", b"x"),
        ]:
            status, error = self.refused(server, method, path, body)
            self.assertEqual(status, 500, f"{path}: {error}")
            self.assertIn("read-only", error.lower(), path)
        self.assertEqual(self.names(server), {"base"})

    def test_no_descriptor_left(self):
        """A model that cannot be opened at the moment is not called damaged, and is there again afterwards."""
        server = self.filled("descriptors")
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        self.addCleanup(connection.close)

        def asked(method, path, body=None):
            connection.request(method, path, body and json.dumps(body))
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

        self.assertEqual(asked("GET", "/api/version")[0], 200)
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        for path in ("show", "generate", "copy"):
            status, reply = asked("POST", f"/api/{path}", {"model": "base", "source": "base", "destination": "n"})
            self.assertEqual(status, 500, reply)
            self.assertIn("Too many open files", reply["error"], path)
            self.assertNotIn("damaged", reply["error"], path)
        asked("GET", "/api/tags")
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
        self.assertEqual(self.names(server), {"base"})

    def test_gone_while_it_runs(self):
        server = self.filled("gone")
        shutil.rmtree(server.models)
        self.assertEqual(self.names(server), set())
        self.assertEqual(self.refused(server, "POST", "/api/show", {"model": "base"})[0], 404)
        status, error = self.refused(server, "POST", f"/api/blobs/{digest(b'x')}", b"x")
        self.assertEqual(status, 500, error)
        self.assertEqual(server.request("GET", "/api/version").status, 200)

    def test_strange_manifests(self):
        server = self.filled("strange")
        good = self.manifest(server.models, "base").read_text()
        layer = json.loads(good)["layers"][0]

        def of(**changes):
            return json.dumps({"layers": [layer | changes]})

        states = [
            "", good[: len(good) // 2], "null", "[]", "7", "x" * (5 << 20), "[" * 100_000, '{"layers":{}}', '{"layers":[7]}',
            of(size=-1), of(size=1 << 63), of(size=layer["size"] + 1), of(digest="sha256:../../x"), of(digest=""),
            of(mediaType="text/plain"), of(mediaType="application/vnd.ollama.image.tensor"), of(digest=digest(b"absent")),
            json.dumps({"layers": [layer] * 100_000}), '{"config":{"digest":"sha256:x","size":1},"layers":[]}',
            json.dumps({"config": {"digest": digest(b"absent"), "size": 5}, "layers": [layer]}),
        ]
        for text in states:
            self.manifest(server.models, "odd", text)
            self.assertIn("base", self.names(server))
            for path in ("/api/show", "/api/generate"):
                status, error = self.refused(server, "POST", path, {"model": "odd", "prompt": "x"})
                self.assertEqual(status, 500, f"{text[:60]}: {error}")
            self.refused(server, "POST", "/api/push", {"model": "odd", "insecure": True})
            self.assertEqual(server.request("DELETE", "/api/delete", {"model": "odd"}).status, 200)
            self.assertNotIn("odd", self.names(server))
        twice = json.dumps({"config": json.loads(good)["config"], "layers": [layer, layer]})
        self.manifest(server.models, "twice", twice)
        server.json("POST", "/api/show", {"model": "twice"})
        server.json("DELETE", "/api/delete", {"model": "twice"})
        valid_blobs(server.models)
        server.json("POST", "/api/show", {"model": "base"})

    def test_strange_files(self):
        server = self.filled("files")
        secret = self.work / "secret"
        secret.write_text("s")
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        makers = {
            "pipe": os.mkfifo,
            "folder": os.mkdir,
            "link": lambda path: os.symlink(secret, path),
            "device": lambda path: os.symlink("/dev/zero", path),
            "dangling": lambda path: os.symlink(self.work / "nothing", path),
        }
        blob = server.models / "blobs" / digest(self.weights).replace(":", "-")
        for kind, make in makers.items():
            manifest = self.manifest(server.models, "odd", "")
            manifest.unlink()
            make(manifest)
            self.assertEqual(self.names(server), {"base"}, kind)
            status, error = self.refused(server, "POST", "/api/show", {"model": "odd"})
            self.assertIn(status, (404, 500), f"{kind}: {error}")
            if kind == "folder":
                manifest.rmdir()
            else:
                self.assertEqual(server.request("DELETE", "/api/delete", {"model": "odd"}).status, 200, kind)
            kept = blob.rename(self.work / "kept")
            make(blob)
            for path, body in [("show", {"model": "base"}), ("generate", {"model": "base"}), ("create", {"model": "n", "from": "base"}),
                               ("push", {"model": "base", "insecure": True})]:
                self.refused(server, "POST", f"/api/{path}", body)
            if kind != "folder":
                # An upload puts the blob in its place.
                server.upload(self.weights)
                server.json("POST", "/api/show", {"model": "base"})
            (blob.rmdir if kind == "folder" else blob.unlink)()
            kept.rename(blob)
            self.assertEqual(secret.read_text(), "s")
            self.assertFalse((self.work / "nothing").exists())
        # The address of a socket is short.
        listener.bind(str(self.work / "s"))
        manifest.parent.mkdir(exist_ok=True)
        (self.work / "s").rename(manifest)
        self.assertEqual(self.refused(server, "POST", "/api/show", {"model": "odd"})[0], 500)

    def test_a_pull_repairs_a_damaged_blob(self):
        registry = self.registry("repairs")
        server = self.filled("cut")
        name = f"127.0.0.1:{registry.port}/library/m:v1"
        server.json("POST", "/api/copy", {"source": "base", "destination": name})
        server.push(name)
        blob = server.models / "blobs" / digest(self.weights).replace(":", "-")

        def verify(*arguments):
            environment = os.environ | {"OLLAMA_MODELS": str(server.models)}
            done = subprocess.run([self.binary, "debug", "verify", *arguments], env=environment, capture_output=True, text=True)
            return done.returncode, done.stdout

        def change():
            with open(blob, "r+b") as file:
                file.seek(5000)
                file.write(b"xyz")
            # Whose length is right is found by reading it alone.
            server.json("POST", "/api/show", {"model": name})
            self.assertEqual(verify("base")[0], 1)
            code, text = verify("--discard")
            self.assertEqual(code, 0, text)
            self.assertIn(f"blob {digest(self.weights)} has other bytes", text)

        for damage in (lambda: os.truncate(blob, 1000), lambda: os.truncate(blob, 0), blob.unlink, change):
            damage()
            self.assertEqual(self.refused(server, "POST", "/api/show", {"model": name})[0], 500)
            self.assertEqual(server.pull(name)[-1], {"status": "success"})
            server.json("POST", "/api/show", {"model": name})
            valid_blobs(server.models)
        self.assertEqual(verify(), (0, "2 models, no damage\n"))

    def test_a_client_that_leaves_while_weights_are_made(self):
        server = self.server(self.work / "left")
        weights = gguf(96 << 20, self.random, 0)
        server.upload(weights)
        blobs = server.models / "blobs"
        before = set(blobs.iterdir())
        for stream in (True, False):
            body = json.dumps({"model": "small", "files": {"m.gguf": digest(weights)}, "quantize": "q4_k_m", "stream": stream})
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(f"POST /api/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                self.until(lambda: any(path.stat().st_size > 1 << 20 for path in set(blobs.iterdir()) - before))
            # The file goes when the work has ended.
            self.until(lambda: set(blobs.iterdir()) == before)
            self.assertEqual(self.names(server), set())
        server.create("small", {"files": {"m.gguf": digest(weights)}})

    def test_full_disk_while_a_checkpoint_is_converted(self):
        """8-bit floats become a file of 32-bit ones, which becomes one of Q8_0: both need room."""
        server = self.server(self.work / "converted", disk_bytes=32 << 20)
        files = float8(CHECKPOINT)
        for data in files.values():
            server.upload(data)
        request = {"model": "m", "files": {name: digest(data) for name, data in files.items()}}
        blobs, filler = server.root / "blobs", server.root / "filler"
        before = sorted(os.listdir(blobs))
        disk = os.statvfs(server.root)
        n_refused = 0
        for room in range(1 << 20, 16 << 20, 1 << 20):
            filler.write_bytes(bytes(disk.f_bavail * disk.f_bsize - room))
            last = server.lines("/api/create", request)[-1]
            filler.unlink()
            if last == {"status": "success"}:
                break
            self.assertIn("no space left", last["error"].lower())
            self.assertNotIn(str(self.work), last["error"])
            self.assertEqual(sorted(os.listdir(blobs)), before, "nothing half made is left")
            self.assertEqual(self.names(server), set())
            n_refused += 1
        self.assertEqual(self.names(server), {"m"}, last)
        self.assertGreater(n_refused << 20, 2 * len(files["model.safetensors"]))

    def test_very_many_models(self):
        self.filled("few").stop()
        text = self.manifest(self.work / "few", "base").read_text()
        # In memory where that is possible: disks take minutes for so many files.
        memory = Path("/dev/shm")
        folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.addCleanup(folder.cleanup)
        models = Path(folder.name) / "many"
        shutil.copytree(self.work / "few", models)
        for i in range(1, N_MODELS):
            path = self.manifest(models, f"m{i % 1000}").with_name(f"t{i}")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        server = self.server(models)
        self.assertLess(server.start_seconds, 5)
        self.assertEqual(len(self.names(server)), N_MODELS)
        seconds = []
        for _ in range(3):
            start = time.monotonic()
            self.assertEqual(len(self.names(server)), N_MODELS)
            seconds.append(time.monotonic() - start)
        print(f"{N_MODELS} models are listed in {min(seconds):.2f} s", file=sys.stderr)
        self.assertLess(min(seconds), 2, "0.4 s where nothing else runs")
        start = time.monotonic()
        server.json("DELETE", "/api/delete", {"model": "m1:t1"})
        self.assertLess(time.monotonic() - start, 10)

    def test_a_file_of_a_terabyte(self):
        server = self.filled("large")
        rows = 1 << 29
        text = lambda s: struct.pack("<Q", len(s)) + s.encode()  # noqa: E731
        head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("general.architecture") + struct.pack("<I", 8) + text("llama")
        head += text("token_embd.weight") + struct.pack("<IQQIQ", 2, 1024, rows, 1, 0)
        size = len(head) + -len(head) % 32 + 2 * 1024 * rows
        name = digest(b"large")
        path = server.models / "blobs" / name.replace(":", "-")
        path.write_bytes(head)
        try:
            os.truncate(path, size)
        except OSError as error:
            self.skipTest(f"no room for a hole of a terabyte: {error}")
        layer = {"mediaType": "application/vnd.ollama.image.model", "digest": name, "size": size}
        self.manifest(server.models, "large", json.dumps({"layers": [layer]}))
        start = time.monotonic()
        server.json("POST", "/api/show", {"model": "large"})
        self.assertLess(time.monotonic() - start, 1)
        status, error = self.refused(server, "POST", "/api/generate", {"model": "large", "prompt": "x"})
        self.assertEqual(status, 500, error)
        self.assertLess(server.memory("VmRSS"), 200 << 20)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
