#!/usr/bin/env bash
# The API as a shell script uses it: status, headers and bodies by curl alone. OLLAMA_HOST names the server.
set -euo pipefail
BASE="http://$OLLAMA_HOST"
PASSED=0

# expect WHAT PATTERN TEXT: fails unless TEXT matches the extended regular expression.
expect() {
  grep -Eq -- "$2" <<<"$3" || { printf 'FAILED: %s\nwanted: %s\ngot: %s\n' "$1" "$2" "$3" >&2; exit 1; }
  PASSED=$((PASSED + 1))
}
post() { curl -sS "$BASE$1" -d "$2"; }
status() { curl -sS -o /dev/null -w '%{http_code}' "$BASE$1" "${@:2}"; }

expect "root" '^Ollama is running$' "$(curl -sS "$BASE/")"
expect "root by grep" '^1$' "$(curl -s "$BASE/" | grep -c Ollama)"
expect "root by HEAD" '^HTTP/1.1 200' "$(curl -sSI "$BASE/")"
expect "tags by grep" '^4$' "$(curl -s "$BASE/api/tags" | grep -o '"name":' | wc -l | tr -d ' ')"
expect "version" '"version":"[0-9]+\.[0-9]+\.[0-9]+' "$(curl -sS "$BASE/api/version")"
expect "tags" '"name":"smollm2:latest"' "$(curl -sS "$BASE/api/tags")"
expect "show" '"general.architecture":"llama"' "$(post /api/show '{"model":"smollm2"}')"

generate='{"model":"smollm2","prompt":"The capital of France is","raw":true,"options":{"temperature":0,"num_predict":4}'
expect "generate" '"response":" Paris.*"done":true.*"eval_count":4' "$(post /api/generate "$generate,\"stream\":false}")"
expect "generate stream" '^\{.*"done":false\}$' "$(post /api/generate "$generate}" | head -n 1)"
expect "generate stream end" '"done_reason":"length"' "$(post /api/generate "$generate}" | tail -n 1)"
expect "stream type" 'application/x-ndjson' "$(curl -sS -o /dev/null -w '%{content_type}' "$BASE/api/generate" -d "$generate}")"
chat='{"model":"smollm2","messages":[{"role":"user","content":"Say hello."}],"options":{"temperature":0,"num_predict":8}'
expect "chat" '"role":"assistant","content":"[^"]+' "$(post /api/chat "$chat,\"stream\":false}")"
expect "chat stream lines" '^[2-9]$|^[0-9]{2}$' "$(post /api/chat "$chat}" | wc -l | tr -d ' ')"
openai='{"model":"smollm2","messages":[{"role":"user","content":"Say hello."}],"temperature":0,"max_tokens":8'
expect "openai" '"object":"chat.completion"' "$(post /v1/chat/completions "$openai}")"
expect "openai stream" '^data: \[DONE\]$' "$(post /v1/chat/completions "$openai,\"stream\":true}" | grep DONE)"

embed='{"model":"minilm","input":'
expect "embed" '^\{"model":"minilm","embeddings":\[\[0\.0178[0-9]*,.*"prompt_eval_count":7\}$' "$(post /api/embed "$embed\"The sky is blue.\"}")"
expect "embed batch" '"prompt_eval_count":13\}$' "$(post /api/embed "${embed}[\"The sky is blue.\",\"Grass is green.\"]}")"
expect "embeddings" '^\{"embedding":\[0\.0178' "$(post /api/embeddings '{"model":"minilm","prompt":"The sky is blue."}')"
expect "openai embeddings" '"usage":\{"prompt_tokens":7,"total_tokens":7\}' "$(post /v1/embeddings "$embed\"The sky is blue.\"}")"
expect "openai base64" '"embedding":"[A-Za-z0-9+/]{22}=="' \
  "$(post /v1/embeddings "$embed\"x\",\"dimensions\":4,\"encoding_format\":\"base64\"}")"
expect "embed with a model that writes" 'smollm2.* does not support embeddings' "$(post /api/embed '{"model":"smollm2","input":"x"}')"
expect "embed no text" '"error":"invalid input type"' "$(post /api/embed "${embed}5}")"

expect "load" '"done_reason":"load"' "$(post /api/generate '{"model":"smollm2","stream":false}')"
expect "ps" '"name":"smollm2:latest"' "$(curl -sS "$BASE/api/ps")"
expect "unload" '"done_reason":"unload"' "$(post /api/generate '{"model":"smollm2","keep_alive":0,"stream":false}')"

expect "unknown model" '"error":"model .nosuch. not found' "$(post /api/generate '{"model":"nosuch","prompt":"x"}')"
expect "unknown model status" '^404$' "$(status /api/generate -d '{"model":"nosuch","prompt":"x"}')"
expect "wrong JSON" '^400$' "$(status /api/chat -d '{"model":')"
expect "wrong type" '^400$' "$(status /api/chat -d '{"model":7}')"
expect "wrong option type" 'option \\"num_ctx\\" must be of type integer' \
  "$(post /api/generate '{"model":"smollm2","prompt":"x","options":{"num_ctx":"big"}}')"
expect "missing model" '"error":"' "$(post /api/chat '{}')"
expect "wrong method" '^405$' "$(status /api/show)"
expect "unknown path" '^404$' "$(status /api/nosuch)"
echo "$PASSED passed, 0 failed"
