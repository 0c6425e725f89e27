#!/usr/bin/env bash
# Installs llama.cpp into the cache, to be measured beside this project: compiled for this machine's CPU (some ten minutes
# on two cores), and prebuilt with Vulkan. Prints the commands to use as OLLAMA_WGPU_BENCH_PEER.
# usage: scripts/peers.sh
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

PEERS="$CACHE/peers"
need_python
need cmake=cmake g++=g++ node=nodejs npm=npm
mkdir -p "$PEERS"

if [ ! -x "$PEERS/venv/bin/python" ] || ! "$PEERS/venv/bin/python" -c 'import llama_cpp' 2>/dev/null; then
  say "compiling llama-cpp-python"
  python3 -m venv "$PEERS/venv"
  # Builds with AMX die of illegal instructions on virtual machines that name it and do not have it.
  flags="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
  if grep -qw avx512_vnni /proc/cpuinfo; then
    flags+=" -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_BF16=ON"
  fi
  [ "$(uname -m)" = x86_64 ] || flags=""
  CMAKE_ARGS="$flags" "$PEERS/venv/bin/pip" install -q --disable-pip-version-check llama-cpp-python==0.3.36
fi
if [ ! -d "$PEERS/node_modules/node-llama-cpp" ]; then
  say "fetching node-llama-cpp"
  npm install --silent --prefix "$PEERS" --ignore-scripts node-llama-cpp@3.22.1
fi

cat <<TEXT
export OLLAMA_WGPU_PEERS=$PEERS
OLLAMA_WGPU_BENCH_PEER='$PEERS/venv/bin/python benches/peers/llama_cpp_peer.py speed \$MODEL --prompt \$PROMPT --decode \$DECODE' cargo bench --bench peer -- cpu '' 256 64
OLLAMA_WGPU_BENCH_PEER='GGML_VK_VISIBLE_DEVICES=0 node benches/peers/vulkan.mjs vulkan \$MODEL \$PROMPT \$DECODE' cargo bench --bench peer -- vulkan:llvmpipe
OLLAMA_WGPU_BENCH_PEER='$PEERS/venv/bin/python benches/peers/llama_cpp_peer.py tokenize \$MODEL \$TEXT' cargo bench --bench tokenizer
OLLAMA_WGPU_BENCH_EMBED_PEER='$PEERS/venv/bin/python benches/peers/llama_cpp_peer.py embed \$MODEL --length \$LENGTH --texts \$TEXTS' cargo bench --bench embed
TEXT
