"""Pull and push against Debian's docker-registry on loopback: there and back, killed and resumed, on a full disk.

usage: registry.py BINARY [SEED]
"""
import json
import os
import sys
import threading
import time
import unittest
from pathlib import Path

from machines import Registry, Relay, Server, Suite, digest, gguf, valid_blobs

BLOB_BYTES = 200 << 20
N_KILLS = 10


def parts(models, name):
    """Where each part of an unfinished blob begins and ends, and how much of it is on disk."""
    files = (Path(models) / "blobs").glob(f"sha256-{name}-partial-*")
    states = [json.loads(path.read_text()) for path in files]
    return [(state["Offset"], state["Offset"] + state["Size"], state["Completed"]) for state in states]


class Tests(Suite):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.source = Registry(cls.work / "registry")
        cls.addClassCleanup(cls.source.stop)
        cls.relay = Relay(cls.source.port)
        # Every test pulls what this one pushes.
        cls.pusher = Server(cls.binary, cls.work / "pushed")
        cls.addClassCleanup(cls.pusher.stop)
        weights = gguf(BLOB_BYTES, cls.random)
        cls.weights = digest(weights).removeprefix("sha256:")
        cls.pusher.upload(weights)
        cls.pusher.create("base", {"files": {"base.gguf": f"sha256:{cls.weights}"}, "system": "Be brief.", "license": "MIT"})
        cls.name = f"127.0.0.1:{cls.relay.port}/library/big:v1"
        cls.pusher.json("POST", "/api/copy", {"source": "base", "destination": cls.name})
        cls.pushed = cls.pusher.push(cls.name)

    def model(self, server):
        """The entry of the model in the server's list, if it is there."""
        models = server.json("GET", "/api/tags")["models"]
        return next((m for m in models if m["name"] == self.name), None)

    def test_there_and_back(self):
        self.assertEqual(self.pushed[-1], {"status": "success"})
        self.assertTrue(any(line.get("completed") == BLOB_BYTES for line in self.pushed), "progress of the push")
        before = self.model(self.pusher)
        # What the registry has is not sent again.
        sent = self.relay.received
        self.assertEqual(self.pusher.push(self.name)[-1], {"status": "success"})
        self.assertLess(self.relay.received - sent, 1 << 20)
        for name in ("base", self.name):
            self.pusher.json("DELETE", "/api/delete", {"model": name})
        self.assertEqual(valid_blobs(self.pusher.models), set(), "rm leaves no blobs")
        lines = self.pusher.pull(self.name)
        self.assertEqual(lines[0], {"status": "pulling manifest"})
        self.assertEqual(lines[-1], {"status": "success"})
        after = self.model(self.pusher)
        self.assertEqual((after["digest"], after["size"]), (before["digest"], before["size"]))
        self.assertEqual(len(valid_blobs(self.pusher.models)), 4)
        # Pulling what is there asks for the manifest alone.
        fetched, start = self.relay.sent, time.monotonic()
        self.assertEqual(self.pusher.pull(self.name)[-1], {"status": "success"})
        self.assertLess(self.relay.sent - fetched, 64 << 10)
        self.assertLess(time.monotonic() - start, 2)

    def test_killed_ten_times(self):
        models = self.work / "killed"
        self.addCleanup(self.relay.unlimit)
        self.relay.limit(100 << 20)
        fetched = self.relay.sent
        for kill in range(N_KILLS + 1):
            known = parts(models, self.weights)
            asked = self.relay.start_listing()
            server = self.server(models)
            self.assertIsNone(self.model(server), "no model before its blobs")
            if kill == N_KILLS:
                self.relay.unlimit()
                idle = server.memory("VmHWM")
                self.assertEqual(server.pull(self.name)[-1], {"status": "success"})
                grown = server.memory("VmHWM") - idle
                print(f"a pull took {grown / (1 << 20):.1f} MiB of memory at most", file=sys.stderr)
                self.assertLess(grown, 16 << 20, "a pull keeps pieces of a blob in memory, not parts")
            else:
                pull = threading.Thread(target=server.try_pull, args=(self.name,))
                pull.start()
                # Together they stop before the blob is whole.
                target = self.relay.sent + self.random.randrange(BLOB_BYTES // (N_KILLS + 2))
                until = time.monotonic() + 20
                while self.relay.sent < target and time.monotonic() < until:
                    time.sleep(0.002)
                server.kill()
                pull.join()
            for first in [first for path, first in asked if self.weights in path]:
                for start, end, completed in known:
                    # Bytes that were on disk when the server died.
                    self.assertFalse(start <= first < start + completed, f"byte {first} of part {start} to {end} is fetched again")
            valid_blobs(models)
        self.assertEqual(parts(models, self.weights), [], "no parts are left")
        self.assertEqual(self.model(server)["size"], self.pushed_size())
        self.assertEqual(len(valid_blobs(models)), 4)
        self.assertGreater(len(known), 0, "the last pull resumed")
        # Beyond the blob: what was under way at each kill, at most a write for each part at once and what sockets hold.
        times = (self.relay.sent - fetched) / BLOB_BYTES
        print(f"fetched {times:.2f} times the blob with {N_KILLS} kills", file=sys.stderr)
        self.assertLess(times, 1.5)

    def test_two_servers_on_one_folder(self):
        models = self.work / "shared"
        self.addCleanup(self.relay.unlimit)
        self.relay.limit(100 << 20)
        fetched = self.relay.sent
        for _ in range(N_KILLS // 2):
            servers = [self.server(models) for _ in range(2)]
            pulls = [threading.Thread(target=server.try_pull, args=(self.name,)) for server in servers]
            for pull in pulls:
                pull.start()
            # The one that fetches dies, or the one that waits; then the other, which may have taken its place.
            self.random.shuffle(servers)
            for server in servers:
                target, until = self.relay.sent + self.random.randrange(1 + BLOB_BYTES // N_KILLS), time.monotonic() + 20
                while self.relay.sent < target and time.monotonic() < until:
                    time.sleep(0.002)
                server.kill()
            for pull in pulls:
                pull.join()
            valid_blobs(models)
        servers = [self.server(models) for _ in range(2)]
        ends = [[], []]
        pulls = [threading.Thread(target=lambda s, e: e.extend(s.pull(self.name)), args=pair) for pair in zip(servers, ends)]
        for pull in pulls:
            pull.start()
        for pull in pulls:
            pull.join()
        for server, lines in zip(servers, ends):
            self.assertEqual(lines[-1], {"status": "success"})
            steps = {line.get("completed", 0) for line in lines if line.get("digest") == f"sha256:{self.weights}"}
            self.assertGreater(len(steps), 2, "the one that waits tells how far the other is")
            self.assertEqual(self.model(server)["size"], self.pushed_size())
        self.assertEqual(len(valid_blobs(models)), 4)
        self.assertEqual([path.name for path in (models / "blobs").iterdir() if len(path.name) != len("sha256-") + 64], [])
        times = (self.relay.sent - fetched) / BLOB_BYTES
        print(f"two servers fetched {times:.2f} times the blob with {N_KILLS} kills", file=sys.stderr)
        self.assertLess(times, 1.5, "each byte is fetched by one of them")

    def test_mounted_deleted_and_pushed_again(self):
        registry, server = self.source, self.server(self.work / "tags")
        weights = gguf(1 << 20, self.random)
        server.upload(weights)
        host = f"127.0.0.1:{registry.port}"
        names = [f"{host}/library/parent:v1", f"{host}/other/child:V1_x.y"]
        server.create(names[0], {"files": {"m.gguf": digest(weights)}})
        server.create(names[1], {"from": names[0], "system": "Be a child."})
        sizes = [registry.folder_bytes()]
        for name in names:
            self.assertEqual(server.push(name)[-1], {"status": "success"})
            sizes.append(registry.folder_bytes())
        self.assertGreater(sizes[1] - sizes[0], 1 << 20)
        self.assertLess(sizes[2] - sizes[1], 1 << 19, "what the parent has is not stored again")
        known_as = registry.manifest("other/child", "V1_x.y")[1]
        registry.request("DELETE", f"other/child/manifests/{known_as}")
        for name in names:
            server.json("DELETE", "/api/delete", {"model": name})
        self.assertEqual(valid_blobs(server.models), set())
        self.assertEqual(server.pull(names[0])[-1], {"status": "success"})
        gone = server.pull(names[1])[-1]
        self.assertEqual(gone, {"error": "pull model manifest: file does not exist"})
        server.create(names[1], {"from": names[0], "system": "Be a child."})
        self.assertEqual(server.push(names[1])[-1], {"status": "success"})
        # Names that this registry does not take; the store does.
        for odd in (f"{host}/library/_m:v1", f"{host}/library/m-:v1"):
            server.create(odd, {"from": names[0]})
            for path in ("/api/push", "/api/pull"):
                last = server.lines(path, {"model": odd, "insecure": True})[-1]
                self.assertRegex(last.get("error", f"{path} worked"), "404: 404 page not found|file does not exist", odd)
        self.assertEqual(len(server.json("GET", "/api/tags")["models"]), 4)

    def pushed_size(self):
        manifest = json.loads(self.source.manifest("library/big", "v1")[0])
        return sum(layer["size"] for layer in manifest["layers"]) + manifest["config"]["size"]

    def test_full_disk(self):
        server = self.server(self.work / "full", disk_bytes=100 << 20)
        small = gguf(1 << 20, self.random, kind=0)
        server.upload(small)
        server.create("small", {"files": {"small.gguf": digest(small)}})
        listed = server.json("GET", "/api/tags")["models"]

        def unchanged(what):
            self.assertEqual(server.json("GET", "/api/tags")["models"], listed, what)
            server.json("POST", "/api/show", {"model": "small"})

        lines = server.pull(self.name)
        self.assertIn("no space left", lines[-1]["error"].lower())
        self.assertNotIn(str(self.work), lines[-1]["error"])
        unchanged("a pull that does not fit")
        # The room that a broken pull takes comes back: here by the folder's owner, else by the sweep.
        for path in (server.root / "blobs").glob("*-partial*"):
            path.unlink()
        status, text = server.try_upload(gguf(120 << 20, self.random))
        self.assertEqual(status, 507, text)
        self.assertIn("no space left", text.lower())
        unchanged("an upload that does not fit")
        names = sorted(os.listdir(server.root / "blobs"))
        # 60 MB that are to become 30 MB more, where 10 are left.
        weights = gguf(60 << 20, self.random, kind=0)
        server.upload(weights)
        request = {"files": {"a.gguf": digest(weights)}, "quantize": "bf16", "model": "m"}
        (server.root / "filler").write_bytes(bytes(30 << 20))
        lines = server.lines("/api/create", request)
        self.assertIn("no space left", lines[-1]["error"].lower())
        unchanged("a creation that does not fit")
        left = sorted(os.listdir(server.root / "blobs"))
        self.assertEqual(left, sorted([*names, digest(weights).replace(":", "-")]), "nothing half made is left")
        (server.root / "filler").unlink()
        self.assertEqual(server.lines("/api/create", request)[-1], {"status": "success"}, "with room it works")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
