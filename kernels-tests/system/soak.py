"""Mixed traffic of many clients over more models than may be loaded: every request is answered within a bound and as when alone,
and what it took is given back.

usage: soak.py BINARY MODELS [SECONDS [CLIENTS [SEED]]]

`OLLAMA_WGPU_DEVICE` chooses the device, the CPU where it is unset. A server that hangs is shown by gdb, where there is one.
"""
import collections
import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
from pathlib import Path

from machines import Server, digest

BINARY, MODELS = sys.argv[1], Path(sys.argv[2])
SECONDS, N_CLIENTS, SEED = [int(given) for given in sys.argv[3:]] + [10, 10, random.randrange(1 << 32)][len(sys.argv) - 3 :]
MB = 1_000_000
WRITERS = {
    "smollm": "smollm2-135m-instruct-q4_1.gguf",
    "qwen": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "gemma": "gemma-3-270m-q4_k_m.gguf",
}
EMBEDDER = {"minilm": "all-minilm-l6-v2-f16.gguf"}
PROMPTS = ["The quick brown fox", "one two three", "Water is " * 60]
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3}},
    "required": ["x"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}
# Seconds for a request; for the server to give back what it took; for it to end.
BOUND, SETTLING, ENDING = 120, 10, 5


class Client(threading.Thread):
    """One request after another until the end, of kinds and sizes by chance. What is wrong goes to `problems`."""

    def __init__(self, i, server, want, end):
        super().__init__(daemon=True)
        self.i, self.server, self.want, self.end = i, server, want, end
        self.random = random.Random(SEED + i)
        self.problems, self.counts = [], collections.Counter()
        self.now = None

    def run(self):
        while time.monotonic() < self.end:
            kind, model = self.random.choice(KINDS), self.random.choice(list(WRITERS))
            begun = time.monotonic()
            self.now = f"{kind.__name__} of {model} since {time.strftime('%X')}"
            try:
                kind(self, model)
            except urllib.error.HTTPError as error:
                self.problems.append(f"{self.now}: {error}: {error.read().decode()}")
            except (AssertionError, KeyError, ValueError, OSError, http.client.HTTPException) as error:
                self.problems.append(f"{self.now}: {error!r}")
            self.now = None
            self.counts[kind.__name__] += 1
            if (took := time.monotonic() - begun) > BOUND:
                self.problems.append(f"{kind.__name__} of {model} took {took:.0f} s")

    def options(self):
        options = {"num_predict": self.random.choice([1, 5, 20, 40]), "temperature": self.random.choice([0, 0.8, 2])}
        if self.random.random() < 0.1:
            options["draft_num_predict"] = 4
        if self.random.random() < 0.1:
            options["num_ctx"] = self.random.choice([512, 1024])
        return options

    def ask(self, method, path, body=None, status=200):
        """The reply, which must have this status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=BOUND)
        try:
            connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body))
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        assert reply.status == status, f"{reply.status} instead of {status}: {text.decode()}"
        return json.loads(text) if text else None

    def stream(self, path, body, n_lines=None, pause=0):
        """The lines of a stream, or the first so many; before each of these it waits a while."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=BOUND)
        try:
            connection.connect()
            if pause:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.request("POST", path, json.dumps(body))
            reply, lines = connection.getresponse(), []
            assert reply.status == 200, f"{reply.status}: {reply.read().decode()}"
            while len(lines) != n_lines and (line := reply.readline()):
                lines.append(json.loads(line))
                assert "error" not in lines[-1], lines[-1]
                time.sleep(pause)
        finally:
            connection.close()
        if n_lines is None:
            assert lines and lines[-1]["done"], "it ends without its last line"
        return lines

    def chat(self, model, **request):
        """The text of an answer, streamed or not, and why it ended."""
        body = {"model": model, "messages": [{"role": "user", "content": "Tell me two things."}], "options": self.options()} | request
        if self.random.random() < 0.5:
            lines = self.stream("/api/chat", body)
        else:
            lines = [self.ask("POST", "/api/chat", body | {"stream": False})]
        return "".join(line["message"]["content"] for line in lines), lines[-1]["done_reason"]

    def alone(self, model):
        prompt = self.random.choice(PROMPTS)
        size = {"num_ctx": 512} if self.random.random() < 0.1 else {}
        assert self.server.generate(model, prompt, options=size)["response"] == self.want[model, prompt], "another answer than alone"

    def long_prompt(self, model):
        self.chat(model, messages=[{"role": "user", "content": f"{self.random.random()} and so on. " * 150}])

    def tools(self, model):
        self.chat("qwen", tools=[TOOL])

    def json_format(self, model):
        text, reason = self.chat(model, format=SCHEMA)
        if reason == "stop":
            numbers = json.loads(text)["x"]
            assert len(numbers) <= 3 and all(number in range(10) for number in numbers), text

    def choices(self, model):
        reply = self.ask("POST", "/v1/completions", {"model": model, "prompt": "Once", "max_tokens": 10, "n": 4})
        assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3], reply

    def logprobs(self, model):
        message = {"role": "user", "content": "Hello."}
        self.ask("POST", "/v1/chat/completions", {"model": model, "messages": [message], "max_tokens": 10, "logprobs": True, "top_logprobs": 3})

    def embed(self, model):
        n = self.random.randrange(1, 20)
        vectors = self.ask("POST", "/api/embed", {"model": "minilm", "input": ["Water is wet."] * n})["embeddings"]
        assert vectors == [self.want["minilm"]] * n, "other vectors than alone"

    def hang_up(self, model):
        body = {"model": model, "prompt": "Count to a thousand.", "options": {"num_predict": 1000}}
        self.stream("/api/generate", body, n_lines=self.random.randrange(10))

    def leave_unheard(self, model):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=BOUND)
        connection.request("POST", "/api/generate", json.dumps({"model": model, "prompt": PROMPTS[2], "options": self.options()}))
        time.sleep(self.random.choice([0, 0.02, 0.2]))
        connection.close()

    def read_slowly(self, model):
        body = {"model": model, "prompt": "Once", "logprobs": True, "top_logprobs": 20, "options": {"num_predict": 60}}
        self.stream("/api/generate", body, pause=self.random.choice([0.01, 0.05]))

    def unload(self, model):
        self.ask("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False})

    def leave_at_once(self, model):
        self.ask("POST", "/api/generate", {"model": model, "prompt": "Once", "keep_alive": 0, "stream": False, "options": self.options()})

    def look(self, model):
        n_loaded = len(self.ask("GET", "/api/ps")["models"])
        assert n_loaded <= 2, f"{n_loaded} models are loaded"
        names = {m["name"].removesuffix(":latest") for m in self.ask("GET", "/api/tags")["models"]}
        assert names >= self.want["names"], names
        self.ask("POST", "/api/show", {"model": model})

    def copy(self, model):
        copy = {"source": model, "destination": f"copy-{self.i}"}
        self.ask("POST", "/api/copy", copy)
        self.ask("DELETE", "/api/delete", {"model": copy["destination"]})

    def nonsense(self, model):
        self.ask("POST", "/api/chat", self.random.choice([b"{", b"[]", b'{"model": 5}', b"\xff\xfe"]), status=400)
        self.ask("POST", "/api/chat", {"model": "nobody", "messages": []}, status=404)


KINDS = [
    Client.alone, Client.alone, Client.chat, Client.chat, Client.long_prompt, Client.tools, Client.json_format, Client.choices,
    Client.logprobs, Client.embed, Client.hang_up, Client.leave_unheard, Client.read_slowly, Client.unload, Client.leave_at_once,
    Client.look, Client.copy, Client.nonsense,
]  # fmt: skip


def held(server):
    """Bytes, open files and threads of the server. The runtime's threads for files stay for ten seconds and are not counted."""
    process, threads = Path(f"/proc/{server.process.pid}"), []
    for task in process.joinpath("task").iterdir():
        # One may end meanwhile.
        with contextlib.suppress(OSError):
            threads.append(task.joinpath("comm").read_text().strip())
    threads = sorted(name for name in threads if not name.startswith("tokio"))
    return server.memory("VmRSS"), len(os.listdir(process / "fd")), threads


def start(folder):
    device = os.environ.get("OLLAMA_WGPU_DEVICE", "cpu")
    settings = {"OLLAMA_MAX_LOADED_MODELS": "2", "OLLAMA_NUM_PARALLEL": "4", "OLLAMA_CONTEXT_LENGTH": "2048"}
    server = Server(BINARY, Path(folder) / "models", OLLAMA_WGPU_DEVICE=device, **settings)
    for name, file in (WRITERS | EMBEDDER).items():
        data = (MODELS / file).read_bytes()
        server.upload(data)
        server.create(name, {"files": {"m.gguf": digest(data)}})
    return server


def answers_alone(server):
    want = {(model, prompt): server.generate(model, prompt)["response"] for model in WRITERS for prompt in PROMPTS}
    want["minilm"] = server.json("POST", "/api/embed", {"model": "minilm", "input": "Water is wet."})["embeddings"][0]
    want["names"] = set(WRITERS | EMBEDDER)
    return want


def unload_all(server):
    for name in server.loaded():
        server.json("POST", "/api/generate", {"model": name, "keep_alive": 0, "stream": False})


def storm(server, want):
    """Problems of all clients."""
    end = time.monotonic() + SECONDS
    clients = [Client(i, server, want, end) for i in range(N_CLIENTS)]
    for client in clients:
        client.start()
    told = time.monotonic()
    while (now := time.monotonic()) < end + BOUND and any(client.is_alive() for client in clients):
        time.sleep(0.1)
        if now - told > 30:
            told = now
            resident, n_files, threads = held(server)
            n_done = sum(client.counts.total() for client in clients)
            n_wrong = sum(len(client.problems) for client in clients)
            print(f"{end - now:.0f} s left: {n_done} requests, {n_wrong} problems, {resident // MB} MB, {n_files} files, {len(threads)} threads", flush=True)
    problems = [problem for client in clients for problem in client.problems]
    hung = [client.now for client in clients if client.is_alive()]
    if hung:
        problems += [f"no answer to {now}" for now in hung]
        if gdb := shutil.which("gdb"):
            subprocess.run([gdb, "-p", str(server.process.pid), "-batch", "-ex", "thread apply all bt 40"])
    counts = sum((client.counts for client in clients), collections.Counter())
    print(f"{counts.total()} requests: {', '.join(f'{n} {kind}' for kind, n in counts.most_common())}")
    return problems


def not_given_back(server, idle):
    until = time.monotonic() + SETTLING
    while True:
        unload_all(server)
        resident, n_files, threads = held(server)
        left = []
        if server.loaded():
            left.append(f"{server.loaded()} are still loaded")
        if resident > idle[0] + 30 * MB:
            left.append(f"{(resident - idle[0]) / MB:.1f} MB above idle are still held")
        if n_files > idle[1]:
            left.append(f"{n_files} files are open, {idle[1]} were")
        if threads != idle[2]:
            left.append(f"threads {threads} run, {idle[2]} did")
        if not left or time.monotonic() > until:
            print(f"unloaded: {(resident - idle[0]) / MB:.1f} MB above idle, {n_files} files, {len(threads)} threads")
            return left
        time.sleep(0.2)


def main():
    with tempfile.TemporaryDirectory() as folder:
        server = start(folder)
        try:
            print(f"seed {SEED}, process {server.process.pid}", flush=True)
            idle = held(server)
            problems = storm(server, answers_alone(server))
            problems += not_given_back(server, idle)
            assert server.request("GET", "/").read() == b"Ollama is running"
            server.process.terminate()
            assert server.process.wait(ENDING) == 0
        finally:
            server.kill()
    for problem in problems[:30]:
        print(problem)
    sys.exit(f"{len(problems)} problems" if problems else 0)


if __name__ == "__main__":
    main()
