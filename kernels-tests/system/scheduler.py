"""Several models in one server: which are loaded, who waits, who is refused, and what memory that takes.

usage: scheduler.py BINARY MODELS
"""
import concurrent.futures
import hashlib
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
from pathlib import Path

from machines import Server

BINARY, MODELS = sys.argv[1:]
MB = 1_000_000
SMOLLM, GEMMA = "smollm2-135m-instruct-q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"
TINY = {"llama": "tiny/tiny-llama.gguf", "qwen": "tiny/tiny-qwen2.gguf", "gemma": "tiny/tiny-gemma3.gguf"}
PROMPTS = ["The quick brown fox", "one two three", "Water is"]


class Suite(unittest.TestCase):
    def start(self, models, **settings):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        server = Server(BINARY, Path(folder.name) / "models", **settings)
        self.addCleanup(server.stop)
        for name, file in models.items():
            data = (Path(MODELS) / file).read_bytes()
            server.upload(data)
            server.create(name, {"files": {"m.gguf": f"sha256:{hashlib.sha256(data).hexdigest()}"}})
        return server

    def test_small_and_soon_there(self):
        servers = [self.start({}) for _ in range(5)]
        self.assertLess(min(server.start_seconds for server in servers), 0.1)
        resident = servers[0].memory("VmRSS")
        print(f"idle: {resident / MB:.1f} MB; listens after {min(s.start_seconds for s in servers) * 1000:.0f} ms", file=sys.stderr)
        self.assertLess(resident, 25 * MB)

    def test_unloading_returns_the_memory(self):
        server = self.start({"smollm": SMOLLM})
        idle = server.memory("VmRSS")
        for _ in range(3):
            server.generate("smollm", "word " * 500, options={"num_ctx": 4096})
            self.assertGreater(server.memory("VmRSS"), idle + 60 * MB)
            server.json("POST", "/api/generate", {"model": "smollm", "keep_alive": 0, "stream": False})
            until = time.monotonic() + 2
            # It leaves the list when it begins to close.
            while (server.loaded() or server.memory("VmRSS") > idle + 30 * MB) and time.monotonic() < until:
                time.sleep(0.05)
            self.assertEqual(server.loaded(), set())
            after = server.memory("VmRSS")
            print(f"unloaded: {(after - idle) / MB:.1f} MB above idle", file=sys.stderr)
            self.assertLess(after, idle + 30 * MB)

    def test_memory_for_one(self):
        models = {"a": SMOLLM, "b": GEMMA}
        # Caches of 94 MB. After this prompt a model has written 40 to 50 MB: a load fits that finds half of that, and no other model.
        size = {"a": {"num_ctx": 4096}, "b": {"num_ctx": 5120}}
        prompt = "word " * 500
        roomy = self.start(models)
        want = {name: roomy.generate(name, prompt, options=size[name])["response"] for name in models}
        self.assertEqual(roomy.loaded(), {"a", "b"})
        roomy.stop()
        server = self.start(models, memory_bytes=134 * MB)
        for name in ["a", "b", "a", "b"]:
            reply = server.generate(name, prompt, options=size[name])
            self.assertEqual(reply["response"], want[name])
            self.assertEqual(server.loaded(), {name}, "the other one has made room")
        with self.assertRaises(urllib.error.HTTPError) as refused:
            server.generate("a", PROMPTS[0], options={"num_ctx": 8192 * 4})
        self.assertIn("memory", refused.exception.read().decode())

    def test_a_load_that_stands_still(self):
        # Whoever asks how much memory is free waits for the answer.
        server = self.start({"smollm": SMOLLM}, memory_bytes=1000 * MB, is_silent=True, OLLAMA_LOAD_TIMEOUT="1s")
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = [pool.submit(server.generate, "smollm", PROMPTS[0]) for _ in range(3)]
            for refused in [answer.exception() for answer in waiting]:
                self.assertEqual(refused.code, 500)
                self.assertIn("no progress for 1s", refused.read().decode())
        self.assertLess(time.monotonic() - begun, 3)
        self.assertEqual(server.loaded(), set())
        server.telling.set()
        self.assertTrue(server.generate("smollm", PROMPTS[0])["done"])

    def test_three_models_where_two_may_be_loaded(self):
        server = self.start(TINY, OLLAMA_MAX_LOADED_MODELS="2")
        ask = [(name, prompt) for name in TINY for prompt in PROMPTS]
        want = {pair: server.generate(*pair)["response"] for pair in ask}
        self.assertEqual(len(set(want.values())), len(ask), "answers tell models and prompts apart")
        most = 0

        def watch(stop):
            nonlocal most
            while not stop.is_set():
                most = max(most, len(server.loaded()))

        stop = threading.Event()
        watcher = threading.Thread(target=watch, args=(stop,))
        watcher.start()
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            pairs = [ask[i * 7 % len(ask)] for i in range(100)]
            replies = list(pool.map(lambda pair: server.generate(*pair), pairs))
        stop.set()
        watcher.join()
        for pair, reply in zip(pairs, replies):
            self.assertEqual(reply["response"], want[pair], pair)
        self.assertIn(most, (1, 2))

    def test_a_full_queue(self):
        server = self.start({"smollm": SMOLLM}, OLLAMA_MAX_QUEUE="512", OLLAMA_NUM_PARALLEL="1")
        server.generate("smollm", "a", n=1)
        # One that does not end holds the only place until its client leaves.
        holder = server.request("POST", "/api/generate", {"model": "smollm", "prompt": "Count.", "options": {"num_predict": 100_000, "num_ctx": 8192}})
        holder.readline()
        n_refused, done = 0, threading.Event()
        lock = threading.Lock()

        def ask(i):
            nonlocal n_refused
            try:
                return server.generate("smollm", f"{i}", n=1, options={"num_ctx": 8192})["done"]
            except urllib.error.HTTPError as error:
                self.assertEqual(error.code, 503)
                self.assertIn("server busy", error.read().decode())
                with lock:
                    n_refused += 1
                    if n_refused == 88:
                        done.set()
                return None

        with concurrent.futures.ThreadPoolExecutor(600) as pool:
            answers = [pool.submit(ask, i) for i in range(600)]
            self.assertTrue(done.wait(60), f"{n_refused} were refused")
            holder.close()
            answers = [answer.result() for answer in answers]
        self.assertEqual((answers.count(None), answers.count(True)), (88, 512))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
