# shellcheck shell=bash
# Shared by the scripts: messages, packages, folders. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Downloaded models outlive the build folder.
# shellcheck disable=SC2034
CACHE="${OLLAMA_WGPU_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ollama-wgpu}"

say() { printf '\n== %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need COMMAND=PACKAGE...: installs Debian packages whose command (or file) is missing.
need() {
  local missing=() pair
  for pair in "$@"; do
    local what="${pair%%=*}" package="${pair#*=}"
    if [[ "$what" == /* ]]; then
      compgen -G "$what" >/dev/null || missing+=("$package")
    else
      command -v "$what" >/dev/null || missing+=("$package")
    fi
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || fail "please install: ${missing[*]}"
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "please install as root: ${missing[*]}"
    root=(sudo)
  fi
  say "installing ${missing[*]}"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

need_rust() {
  command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
  need cc=gcc
}

# need_python: a python3 with pip and venv.
need_python() {
  need python3=python3
  python3 -m pip --version >/dev/null 2>&1 || need /nonexistent=python3-pip
  python3 -c 'import ensurepip, venv' 2>/dev/null || need /nonexistent=python3-venv
}
