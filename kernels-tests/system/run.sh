#!/usr/bin/env bash
# The server as a process among others: against a real registry, killed at random moments, on full disks, in little memory and under
# mixed traffic.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"

need docker-registry=docker-registry unshare=util-linux strace=strace
need_python
BIN="${OLLAMA_WGPU_BIN:-}"
if [ -z "$BIN" ]; then
  cargo test --release --no-run --quiet
  BIN="$PWD/target/release/ollama-wgpu"
fi
python3 kernels-tests/system/registry.py "$BIN"
python3 kernels-tests/system/store.py "$BIN"
python3 kernels-tests/system/scheduler.py "$BIN" "$PWD/target/test-models"
python3 kernels-tests/system/terminal.py "$BIN" "$PWD/target/test-models"
python3 kernels-tests/system/soak.py "$BIN" "$PWD/target/test-models" 8
