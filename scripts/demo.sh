#!/usr/bin/env bash
# From nothing to an answer: installs what is missing, builds, fetches SmolLM2-135M-Instruct, imports it, starts the
# server and streams an answer. The port is OLLAMA_HOST's, or a free one.
# usage: scripts/demo.sh [QUESTION]
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

QUESTION="${1:-What is the capital of France? Answer in one sentence.}"

need_rust
need_python

say "building"
cargo build --release
BIN="$PWD/target/release/ollama-wgpu"

MODEL="$(scripts/models.sh smollm2 | tail -n 1)/smollm2-135m-instruct-q4_1.gguf"

PORT="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
export OLLAMA_HOST="${OLLAMA_HOST:-127.0.0.1:$PORT}"
export OLLAMA_MODELS="${OLLAMA_MODELS:-$CACHE/demo-models}"
LOG="$(mktemp)"

say "starting the server on $OLLAMA_HOST, models in $OLLAMA_MODELS"
"$BIN" serve >"$LOG" 2>&1 &
SERVER=$!
stop() {
  kill "$SERVER" 2>/dev/null || true
  wait "$SERVER" 2>/dev/null || true
  rm -f "$LOG"
}
trap stop EXIT
for _ in $(seq 100); do
  "$BIN" list >/dev/null 2>&1 && break
  kill -0 "$SERVER" 2>/dev/null || { cat "$LOG" >&2; fail "the server did not start"; }
  sleep 0.1
done

say "importing SmolLM2-135M-Instruct"
MODELFILE="$(mktemp)"
printf 'FROM %s\n' "$MODEL" >"$MODELFILE"
"$BIN" create smollm2 -f "$MODELFILE"
rm -f "$MODELFILE"

say "$QUESTION"
"$BIN" run smollm2 --verbose "$QUESTION"
say "device: $("$BIN" ps | tail -n +2)"
grep -i 'model runs on' "$LOG" | tail -n 1 || true
