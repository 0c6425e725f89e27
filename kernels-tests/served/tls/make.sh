#!/usr/bin/env bash
# Makes the certificates of the tests, all of them with the key beside this file: an authority, what it signed, and one
# that signed itself. They last a century, but for the expired one.
# usage: kernels-tests/served/tls/make.sh
set -euo pipefail
cd "$(dirname "$0")"
here="subjectAltName=IP:127.0.0.1,DNS:localhost"
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out authority.key
openssl req -x509 -new -key authority.key -subj "/CN=test authority" -days 36500 -out authority.pem
signed() { # name, alternative names, further arguments
  openssl req -new -key key.pem -subj "/CN=$1" | openssl x509 -req -CA authority.pem -CAkey authority.key -out "$1.pem" \
    -extfile <(printf '%s\nbasicConstraints=critical,CA:FALSE\n' "$2") "${@:3}"
}
signed signed "$here" -days 36500
signed elsewhere "subjectAltName=DNS:elsewhere.example" -days 36500
signed expired "$here" -days 0
openssl req -x509 -new -key key.pem -subj "/CN=own authority" -addext "$here" -days 36500 -out own-authority.pem
rm authority.key
