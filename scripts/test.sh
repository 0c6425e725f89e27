#!/usr/bin/env bash
# Installs what is missing, fetches the test models once, runs every test.
# usage: scripts/test.sh
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

need_rust
need_python
need /usr/share/vulkan/icd.d/lvp_icd*.json=mesa-vulkan-drivers \
  /usr/lib/*/libvulkan.so.1=libvulkan1 \
  /usr/lib/chromium/vk_swiftshader_icd.json=chromium-common \
  node=nodejs npm=npm curl=curl

mkdir -p target
MODELS="$(scripts/models.sh smollm2 qwen-coder gemma minilm tiny checkpoints vocabs templates library json-schema | tail -n 1)"
ln -sfn "$MODELS" target/test-models

say "unit and integration tests, GPU cases on Mesa's software Vulkan"
LAVAPIPE=(/usr/share/vulkan/icd.d/lvp_icd*.json)
VK_DRIVER_FILES="${LAVAPIPE[0]}" cargo test --release

say "benches, every case once and small"
cargo test --release --bench '*'

# Another compiler and subgroups of 4: every op, and models with each kind of layer.
say "GPU cases and tiny models on SwiftShader, which Chromium brings along"
VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json \
  OLLAMA_WGPU_TEST_TINY=tiny-llama,tiny-gemma3,tiny-phi3,tiny-qwen3moe-q4_k,tiny-gpt-oss,tiny-lfm2,tiny-qwen35,tiny-deepseek2 \
  cargo test --release --test kernels every_gpu

say "the server as a process: a registry, kills, full disks, many models"
kernels-tests/system/run.sh

say "clients: curl, Python and JavaScript"
kernels-tests/clients/run.sh
