#!/usr/bin/env python3
"""Write the reference vectors of all-MiniLM-L6-v2, computed without GGUF: the checkpoint's own
32-bit weights, in numpy and float64, over the ids of Hugging Face's tokenizer.

usage: make_references.py SOURCE OUT.json      (SOURCE as for minilm_to_gguf.py)

Needs the PyPI packages numpy, safetensors and tokenizers.
"""
import json
import math
import sys

import numpy as np
from safetensors.numpy import load as load_safetensors
from tokenizers import Tokenizer

from minilm_to_gguf import open_source

TEXTS = [
    "hi",
    "The sky is blue.",
    "Grass is green.",
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Hello WORLD! Don't wait: in 2024 there were 1000 boats (or 1,023?), naïve café.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "東京は日本の首都です。 Москва — столица России.",
    "fn main() { println!(\"{}\", 1 + 2); } // a comment 🙂",
    "   leading blanks,\ttabs and\n\nline ends   ",
    "word " * 300,
]
ERF = np.vectorize(math.erf)


def norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + eps) * weight + bias


class Model:
    def __init__(self, read):
        self.config = json.loads(read("config.json"))
        tensors = load_safetensors(read("model.safetensors"))
        self.tensors = {k.removeprefix("bert."): v.astype(np.float64) for k, v in tensors.items()}

    def linear(self, x, name):
        return x @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"]

    def norm(self, x, name):
        weight, bias = self.tensors[name + ".weight"], self.tensors[name + ".bias"]
        return norm(x, weight, bias, self.config["layer_norm_eps"])

    def heads(self, x):
        return x.reshape(len(x), self.config["num_attention_heads"], -1).transpose(1, 0, 2)

    def layer(self, x, at):
        q, k, v = (self.heads(self.linear(x, f"{at}attention.self.{n}")) for n in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ v).transpose(1, 0, 2).reshape(x.shape)
        y = self.norm(x + self.linear(mixed, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        h = self.linear(y, at + "intermediate.dense")
        h = 0.5 * h * (1 + ERF(h / math.sqrt(2)))
        return self.norm(y + self.linear(h, at + "output.dense"), at + "output.LayerNorm")

    def embed(self, ids):
        words, positions, types = (
            self.tensors[f"embeddings.{n}_embeddings.weight"] for n in ("word", "position", "token_type"))
        x = self.norm(words[ids] + positions[: len(ids)] + types[0], "embeddings.LayerNorm")
        for i in range(self.config["num_hidden_layers"]):
            x = self.layer(x, f"encoder.layer.{i}.")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    read = open_source(sys.argv[1])
    model = Model(read)
    tokenizer = Tokenizer.from_str(read("tokenizer.json").decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        vector = [round(float(x), 6) for x in model.embed(ids)]
        texts.append({"text": text, "tokens": ids, "embedding": vector})
    with open(sys.argv[2], "w") as out:
        out.write('{"texts": [\n' + ",\n".join(json.dumps(t, ensure_ascii=False) for t in texts) + "\n]}\n")


if __name__ == "__main__":
    main()
