#!/usr/bin/env bash
# Makes the certificates of the tests: an authority, what it signed for the key beside this file, one that signed itself,
# and an authority that is its own server. They are valid from 2020 for a century, but for the expired one.
# usage: kernels-tests/served/tls/make.sh
set -euo pipefail
cd "$(dirname "$0")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
touch "$work/index.txt"
cat > "$work/ca.conf" <<CONF
[ca]
default_ca = here
[here]
database = $work/index.txt
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = names
unique_subject = no
[names]
commonName = supplied
CONF
made() { # name, key, extensions, end, further arguments
  openssl req -new -key "$2" -subj "/CN=test $1" -out "$work/request"
  printf '%b' "$3" > "$work/extensions"
  openssl ca -batch -notext -config "$work/ca.conf" -in "$work/request" -extfile "$work/extensions" \
    -startdate 20200101000000Z -enddate "$4" -out "$1.pem" "${@:5}"
}
here="subjectAltName=IP:127.0.0.1,DNS:localhost"
server="basicConstraints=critical,CA:FALSE"
authority="basicConstraints=critical,CA:TRUE"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/key"
made authority "$work/key" "$authority" 21200101000000Z -selfsign -keyfile "$work/key"
by_authority=(-cert authority.pem -keyfile "$work/key")
made signed key.pem "$here\n$server" 21200101000000Z "${by_authority[@]}"
made elsewhere key.pem "subjectAltName=DNS:elsewhere.example\n$server" 21200101000000Z "${by_authority[@]}"
made expired key.pem "$here\n$server" 20210101000000Z "${by_authority[@]}"
made cert key.pem "$here\n$server" 21200101000000Z -selfsign -keyfile key.pem
made own-authority key.pem "$here\n$authority" 21200101000000Z -selfsign -keyfile key.pem
