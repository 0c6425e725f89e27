#!/usr/bin/env python3
"""Writes kernels-tests/golden/random-text.json: random strings and what llama.cpp's tokenizer makes of them.

    pip install llama-cpp-python==0.3.36
    python3 scripts/vocabs/random_text.py VOCABS_FOLDER > kernels-tests/golden/random-text.json

VOCABS_FOLDER is that of `scripts/models.sh vocabs`. Of the ids only digests are kept, one per block of 100 strings:
the first 16 digits of the SHA-256 of each string's number of ids and its ids, all as 32-bit little-endian numbers.
"""

import ctypes
import hashlib
import json
import random
import struct
import sys
import tempfile
import unicodedata
from pathlib import Path

import llama_cpp as llama

N_STRINGS, BLOCK = 2000, 100
# Vocabularies that are tokenized as they are, and those that lend their entries to pre-tokenizers.
WHOLE = ["llama-spm", "phi-3", "baichuan", "nomic-bert-moe", "gemma-4", "llama-bpe", "qwen2", "command-r"]
BYTE_LEVEL, TEXT_LEVEL = "gpt-2", "gemma-4"
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def strings():
    """Strings of all planes, with control characters, runs of white space, numbers, contractions and markup."""
    rng = random.Random(7)

    def character():
        while True:
            c = any_character()
            # Unassigned characters only from planes that stay empty: others may be assigned in one of the
            # tokenizers' versions of Unicode and not in the other's.
            if unicodedata.category(c) != "Cn" or 0x40000 <= ord(c) < 0xE0000:
                return c

    def any_character():
        kind = rng.random()
        if kind < 0.3:
            return chr(rng.randrange(0x20, 0x7F))
        if kind < 0.4:
            return chr(rng.randrange(1, 0x300))
        if kind < 0.6:
            return chr(rng.choice([rng.randrange(0x300, 0xD800), rng.randrange(0xE000, 0x10000)]))
        if kind < 0.7:
            return chr(rng.randrange(0x10000, 0x20000))
        if kind < 0.75:
            return chr(rng.randrange(0x10000, 0x110000))
        if kind < 0.8:
            return chr(rng.randrange(0x4E00, 0x9FA6))
        if kind < 0.85:
            return chr(rng.randrange(0xAC00, 0xD7A4))
        if kind < 0.9:
            return rng.choice("\t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u3000\u200b\ufeff\xad ")
        return rng.choice("\u0966\u0967\u0662\xbd\u2167\uff11\xe9\xdc\xdf\u043f\u0416\u05d0\u092c\u092e\u094d")

    def run(alphabet, longest):
        return "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, longest)))

    def piece():
        kind = rng.random()
        if kind < 0.25:
            return run("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", 9)
        if kind < 0.35:
            return rng.choice([" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", " " * rng.randrange(1, 70)])
        if kind < 0.45:
            return run("0123456789", 9)
        if kind < 0.5:
            return rng.choice(["'s", "'S", "'re", "'LL", "'d", "'x", "n't", "'VE", "'\u017f"])
        if kind < 0.6:
            return run("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", 4)
        if kind < 0.65:
            return rng.choice(["IMGIMGABCZ", "<sentinel:12>", "Hello world", "\u4f60\u597d", "\u0928\u092e\u0938\u094d\u0924\u0947",
                               "\u3053\u3093\u306b\u3061\u306f \u30ab\u30bf\u30ab\u30ca", "\uc548\ub155", "\u0e2a\u0e27\u0e31\u0e2a",
                               "\u041f\u0440\u0438\u0432\u0435\u0442", "\u0645\u0631\u062d\u0628\u0627"])
        return "".join(character() for _ in range(rng.randrange(1, 6)))

    return ["".join(piece() for _ in range(rng.randrange(1, 14))) for _ in range(N_STRINGS)]


def skip(data, at, kind):
    """The end of a GGUF value."""
    if kind == 8:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind != 9:
        return at + SIZES[kind]
    item, n = struct.unpack_from("<IQ", data, at)
    at += 12
    if item != 8:
        return at + n * SIZES[item]
    for _ in range(n):
        at = skip(data, at, 8)
    return at


def with_keys(source, keys):
    """A vocabulary file with other texts for some keys."""
    data = source.read_bytes()
    at, kept = 24, []
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        start = at
        n = struct.unpack_from("<Q", data, at)[0]
        key = data[at + 8:at + 8 + n].decode()
        at += 8 + n
        at = skip(data, at + 4, struct.unpack_from("<I", data, at)[0])
        if key not in keys:
            kept.append(data[start:at])
    text = lambda value: struct.pack("<Q", len(value)) + value.encode()
    kept += [text(key) + struct.pack("<I", 8) + text(value) for key, value in keys.items()]
    return data[:4] + struct.pack("<IQQ", 3, 0, len(kept)) + b"".join(kept)


def digests(path, texts):
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        return None
    vocab = llama.llama_model_get_vocab(model)
    blocks = []
    for block in range(0, len(texts), BLOCK):
        digest = hashlib.sha256()
        for text in texts[block:block + BLOCK]:
            data = text.encode()
            ids = (llama.llama_token * (len(data) + 16))()
            n = llama.llama_tokenize(vocab, data, len(data), ids, len(ids), False, False)
            digest.update(struct.pack(f"<{n + 1}I", n, *ids[:n]))
        blocks.append(digest.hexdigest()[:16])
    llama.llama_model_free(model)
    return blocks


def main():
    folder, names = Path(sys.argv[1]), Path(__file__).with_name("pre_tokenizers.txt").read_text().split()
    file = lambda name: folder / f"ggml-vocab-{name}.gguf"
    silent = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    texts = strings()
    result = {"strings": texts, "block": BLOCK, "vocabs": {name: digests(file(name), texts) for name in WHOLE}}
    rows = result["pre"] = {}
    for name in names:
        base = TEXT_LEVEL if name in ("gemma4", "granite-embed-multi-311m", "sarvam-moe") else BYTE_LEVEL
        with tempfile.NamedTemporaryFile() as made:
            model = "whitespace" if name == "whitespace" else "gpt2"
            Path(made.name).write_bytes(with_keys(file(base), {"tokenizer.ggml.model": model, "tokenizer.ggml.pre": name}))
            rows[name] = {"base": base, "digests": digests(made.name, texts)}
    assert all(row["digests"] for row in rows.values()), "a pre-tokenizer that llama.cpp does not know"
    json.dump(result, sys.stdout, ensure_ascii=False, indent=0)


main()
