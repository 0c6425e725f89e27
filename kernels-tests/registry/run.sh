#!/usr/bin/env bash
# Pull and push against a real registry, with kills at random moments and with full disks.
source "$(dirname "$0")/../../scripts/lib.sh"

need docker-registry=docker-registry unshare=util-linux
need_python
BIN="${OLLAMA_WGPU_BIN:-}"
if [ -z "$BIN" ]; then
  cargo test --release --no-run --quiet
  BIN="$PWD/target/release/ollama-wgpu"
fi
exec python3 kernels-tests/registry/suite.py "$BIN" "$@"
