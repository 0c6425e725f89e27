#!/usr/bin/env python3
"""Quantise a model here and with llama.cpp, and compare the files: types, bytes, perplexity on this engine.

usage: perplexity.py OLLAMA_WGPU MODEL.gguf TEXT [LEVEL...]     print a Markdown table, a line a level

OLLAMA_WGPU is the program, MODEL.gguf a file of floats. Needs `llama-cpp-python` (0.3.36) and `gguf` (0.19).
"""
import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import llama_cpp as llama

sys.dont_write_bytecode = True
from make_references import LEVELS  # noqa: E402

NAMES = {level: "q" + level[1:] for level in LEVELS}
FLOATS = ("F32", "F16", "BF16")


def theirs(model, level, out):
    params = llama.llama_model_quantize_default_params()
    params.ftype = LEVELS[level]
    if llama.llama_model_quantize(str(model).encode(), str(out).encode(), ctypes.byref(params)):
        sys.exit(f"llama.cpp cannot quantise to {level}")
    return out


class Server:
    """The program under test on a store of its own."""

    def __init__(self, program, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.program = program
        self.env = os.environ | {"OLLAMA_MODELS": str(folder / "store"), "OLLAMA_HOST": f"127.0.0.1:{self.port}"}
        self.process = subprocess.Popen([program, "serve"], env=self.env, stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.05)

    def run(self, *args):
        return subprocess.run([self.program, *args], env=self.env, check=True, capture_output=True, text=True).stdout

    def quantised(self, modelfile, level):
        """The file that `create --quantize` makes."""
        self.run("create", "quantised", "-f", str(modelfile), "-q", NAMES[level])
        lines = self.run("show", "quantised", "--modelfile").splitlines()
        return Path(next(line[5:] for line in lines if line.startswith("FROM ")))


def perplexity(program, model, text):
    out = subprocess.run([program, "debug", "perplexity", str(model), str(text), "--device", "cpu"], check=True, capture_output=True)
    return json.loads(out.stdout)["perplexity"]


def differences(ours, theirs):
    """Tensors of other types, and the share of bytes that differ."""
    other = {tensor.name: tensor for tensor in gguf.GGUFReader(theirs).tensors}
    types, bytes_, n = 0, 0, 0
    for tensor in gguf.GGUFReader(ours).tensors:
        theirs = other.pop(tensor.name)
        n += tensor.n_bytes
        if tensor.tensor_type != theirs.tensor_type:
            types += 1
        else:
            bytes_ += int((tensor.data.reshape(-1).view("u1") != theirs.data.reshape(-1).view("u1")).sum())
    assert not other, f"tensors {list(other)} are missing"
    return types, bytes_ / n


def main():
    program, model, text, *levels = sys.argv[1:]
    levels = levels or [level for level in LEVELS if level not in FLOATS]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        modelfile = folder / "Modelfile"
        modelfile.write_text(f"FROM {Path(model).resolve()}\n")
        server = Server(program, folder)
        try:
            print(f"the file itself: {perplexity(program, model, text):.4f}\n")
            print("| level | tensors of another type | bytes that differ | perplexity here | of llama.cpp's file | ratio |")
            print("| --- | --- | --- | --- | --- | --- |")
            for level in levels:
                made = server.quantised(modelfile, level)
                reference = theirs(model, level, folder / "theirs.gguf")
                types, share = differences(made, reference)
                here = there = perplexity(program, made, text)
                if types or share:
                    there = perplexity(program, reference, text)
                print(f"| {level} | {types} | {100 * share:.5f} % | {here:.4f} | {there:.4f} | {here / there:.4f} |", flush=True)
        finally:
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()
