#!/usr/bin/env bash
# Real clients and frameworks against the real server with real models: curl, PyPI, npm. Each of PyPI ollama, openai,
# anthropic, langchain-ollama, llama-index-llms-ollama, litellm and npm ollama, openai, ai: chat, stream, a tool's call and
# its result (in a stream, too), structured output, embeddings and errors, as far as the client has them (Anthropic's API
# has no embeddings).
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"

HERE="$PWD/kernels-tests/clients"
MODELS="$PWD/target/test-models"
WORK="$(mktemp -d)"
export OLLAMA_MODELS="$WORK/models" OLLAMA_WGPU_DEVICE=cpu
OLLAMA_HOST="127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
export OLLAMA_HOST

# The test build, whose dependencies are those of the tests before it.
cargo test --release --no-run --quiet
BIN="$PWD/target/release/ollama-wgpu"
OLLAMA_NUM_PARALLEL=8 "$BIN" serve >"$WORK/server.log" 2>&1 &
SERVER=$!
stop() {
  local status=$?
  [ "$status" -eq 0 ] || tail -n 40 "$WORK/server.log" >&2
  kill "$SERVER" 2>/dev/null || true
  wait "$SERVER" 2>/dev/null || true
  rm -rf "$WORK"
}
trap stop EXIT
for _ in $(seq 100); do "$BIN" list >/dev/null 2>&1 && break; sleep 0.1; done

for model in minilm=all-minilm-l6-v2-f16 smollm2=smollm2-135m-instruct-q4_1 qwen=qwen2.5-coder-0.5b-instruct-q4_k_m; do
  printf 'FROM %s\n' "$MODELS/${model#*=}.gguf" >"$WORK/Modelfile"
  "$BIN" create "${model%%=*}" -f "$WORK/Modelfile"
done
# A template under which a small model calls tools of its own accord.
"$BIN" create tooler -f "$HERE/tooler.Modelfile"

say "curl"
"$HERE/curl.sh"

say "PyPI ollama, openai, anthropic, langchain-ollama, llama-index-llms-ollama, litellm"
VENV="$CACHE/clients-venv"
[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
"$VENV/bin/pip" install -q --disable-pip-version-check -r "$HERE/requirements.txt"
"$VENV/bin/python" -m pytest -q -p no:cacheprovider "$HERE"

say "npm ollama, openai and ai; fetch"
NODE="$CACHE/clients-node"
mkdir -p "$NODE"
cp "$HERE/package.json" "$HERE/package-lock.json" "$HERE"/*.test.mjs "$NODE/"
(cd "$NODE" && npm ci --silent --no-audit --no-fund && node --test clients.test.mjs ai.test.mjs tutorial.test.mjs)
