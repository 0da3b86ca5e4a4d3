#!/usr/bin/env bash
# Tests the verifiers themselves: that each accepts good cases and refuses bad ones, all made with openssl and keytool.
# usage: self-test.sh FOLDER     (where install.sh has put what it made)
# shellcheck disable=SC2317  # Most functions are called by their names, in all_verify and expect_failure.
set -euo pipefail
export LC_ALL=C
shopt -s nullglob

here=$(cd "$(dirname "$0")" && pwd)
source "$here/../../.ci/needs"
both='["server auth", "client auth"]'
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

main() {
    if (($# != 1)); then
        echo "usage: self-test.sh FOLDER" >&2
        exit 2
    fi
    needs jq 'apt-get install jq' openssl 'apt-get install openssl' certtool 'apt-get install gnutls-bin' \
        keytool 'apt-get install default-jre-headless' \
        "$1/verify-go" "tests/verifiers/install.sh $1" "$1/venv/bin/python" "tests/verifiers/install.sh $1"
    verify_go=$(realpath "$1")/verify-go
    python=("$(realpath "$1")/venv/bin/python")
    profiles >"$scratch/profiles"
    make_authority root P-256
    make_authority other P-256
    make_authority intermediate P-384 root

    good_cases
    bad_cases
    nothing_to_verify
    tools_missing
    echo "the verifiers accept what is good and refuse what is bad"
}

good_cases() {
    local key
    directory=$scratch/good
    for key in P-256 P-384 RSA-2048 RSA-4096 Ed25519; do
        new_case "$key" "$key" root leaf
        add_keystores root
    done
    new_case chain P-256 intermediate leaf
    add_keystores root
    new_case two-authorities P-256 root leaf
    cat "$scratch/other.crt" "$scratch/root.crt" >ca.crt
    add_keystores root other
    new_case server P-256 root server
    describe '["server auth"]' false
    new_case client P-256 root client
    describe '["client auth"]' false
    accepted_by_all
}

# Each is wrong in one way, and names the tools that have to notice.
bad_cases() {
    directory=$scratch/bad
    local verifiers=(go go-tls1.2 go-tls1.3 cryptography openssl certtool)

    new_case expired P-256 root leaf -1
    refused_by "${verifiers[@]}"
    new_case wrong-ca P-256 root leaf
    cp "$scratch/other.crt" ca.crt
    refused_by "${verifiers[@]}"
    new_case no-san P-256 root no-san
    refused_by "${verifiers[@]}"
    new_case other-host P-256 root leaf
    jq '.host = "another.ns.svc"' case.json >new && mv new case.json
    refused_by "${verifiers[@]}"
    new_case wrong-host-is-right P-256 root leaf
    jq '.wrongHost = .host' case.json >new && mv new case.json
    refused_by "${verifiers[@]}"
    new_case no-intermediate P-256 intermediate leaf
    openssl x509 -in tls.crt -out tls.crt
    describe "$both" false
    refused_by "${verifiers[@]}"
    new_case intermediates-not-announced P-256 intermediate leaf
    describe "$both" false
    refused_by go python verify.sh
    new_case usage-missing P-256 root server
    refused_by "${verifiers[@]}"
    new_case usage-too-many P-256 root leaf
    describe '["server auth"]' false
    refused_by go cryptography openssl certtool
    new_case other-key P-256 root leaf
    new_key P-256 >tls.key
    refused_by go-tls1.2 go-tls1.3
    new_case not-to-lint P-256 root usage-not-critical
    refused_by pkilint
    new_case file-missing P-256 root leaf
    rm ca.crt
    refused_by go python verify.sh

    new_case keystore-of-another P-256 root leaf
    add_keystores root
    new_case keystore-of-another P-256 root leaf
    refused_by openssl-p12 keytool-p12 keytool-jks
    new_case truststore-of-another P-256 root leaf
    add_keystores other
    refused_by openssl-truststore-p12 keytool-truststore-p12 keytool-truststore-jks
    new_case keystore-as-truststore P-256 root leaf
    add_keystores root
    mv keystore.p12 truststore.p12
    mv keystore.jks truststore.jks
    refused_by openssl-truststore-p12 keytool-truststore-p12 keytool-truststore-jks
    new_case truststore-with-key P-256 root leaf
    add_keystores root
    openssl pkcs12 -export -in ca.crt -inkey "$scratch/root.key" -out truststore.p12 \
        -passout file:password
    refused_by openssl-truststore-p12 keytool-truststore-p12
    new_case wrong-password P-256 root leaf
    add_keystores root
    echo something-else >password
    refused_by openssl-p12 openssl-truststore-p12 keytool-p12 keytool-truststore-p12 \
        keytool-jks keytool-truststore-jks
    new_case jks-is-p12 P-256 root leaf
    add_keystores root
    cp keystore.p12 keystore.jks
    cp truststore.p12 truststore.jks
    refused_by keytool-jks keytool-truststore-jks
}

nothing_to_verify() {
    local directory tool
    mkdir "$scratch/empty"
    for directory in "$scratch/empty" "$scratch/nowhere"; do
        for tool in go_verify go_handshake python_verify shell_verify; do
            expect_failure "$tool" "$directory" FAIL
        done
    done
}

tools_missing() {
    local bin=$scratch/bin tool
    mkdir "$bin"
    for tool in bash basename dirname mktemp rm tr; do
        ln -s "$(type -P "$tool")" "$bin/$tool"
    done
    for tool in jq openssl certtool keytool; do
        PATH=$bin expect_failure shell_verify "$scratch/good" \
            "$tool"$'\tFAIL\t'"$tool is not installed; apt-get install "
    done
    python+=(-S) # without site-packages
    expect_failure python_verify "$scratch/good" "FAIL"$'\t'"No module named"
}

go_verify() { "$verify_go" verify "$1"; }
go_handshake() { "$verify_go" handshake "$1"; }
python_verify() { "${python[@]}" "$here/verify.py" "$1"; }
shell_verify() { "$here/verify.sh" "$1"; }

all_verify() {
    local tool status=0
    for tool in go_verify go_handshake python_verify shell_verify; do
        "$tool" "$1" || status=1
    done
    return "$status"
}

accepted_by_all() {
    local said
    said=$(all_verify "$directory") || wrong "a good case was refused" "$said"
    echo "$said"
}

# The case that was made last is refused by each of these tools.
refused_by() {
    local said tool
    said=$(all_verify "$directory") && wrong "$name was accepted" "$said"
    for tool; do
        grep -q "^$name"$'\t'"$tool"$'\tFAIL\t' <<<"$said" ||
            wrong "$name was accepted by $tool" "$said"
    done
    grep FAIL <<<"$said"
    cd "$scratch"
    rm -r "$directory"
}

expect_failure() {
    local tool=$1 directory=$2 reason=$3 said
    said=$("$tool" "$directory") && wrong "$tool succeeded for $directory" "$said"
    [[ $said == *"$reason"* ]] || wrong "$tool did not say $reason" "$said"
}

wrong() {
    printf '%s\n\n%s\n' "$2" "$1" >&2
    exit 1
}

# new_case NAME KEY ISSUER PROFILE [DAYS]: a case for both usages, whose folder is then the working directory. The common
# name is the host, so that a verifier that looks at it instead of at subjectAltName is found out.
new_case() {
    name=$1
    local key=$2 issuer=$3 profile=$4 days=${5:-90}
    mkdir -p "$directory/$name"
    cd "$directory/$name"
    new_key "$key" >tls.key
    sign tls.key app.ns.svc "$issuer" "$profile" "$days" >tls.crt
    cp "$scratch/root.crt" ca.crt
    if [[ $issuer == intermediate ]]; then
        cat "$scratch/intermediate.crt" >>tls.crt
        describe "$both" true
    else
        describe "$both" false
    fi
}

describe() {
    cat >case.json <<JSON
{"host": "app.ns.svc", "wrongHost": "other.ns.svc", "usages": $1, "intermediates": $2}
JSON
}

# make_authority NAME KEY [ISSUER]: without an issuer a root.
make_authority() {
    local name=$1 key=$2 issuer=${3:-}
    new_key "$key" >"$scratch/$name.key"
    if [[ $issuer ]]; then
        sign "$scratch/$name.key" "$name" "$issuer" intermediate 365 >"$scratch/$name.crt"
    else
        openssl req -x509 -config "$scratch/profiles" -extensions root -key "$scratch/$name.key" \
            -subj "/CN=Example CA" -set_serial "0x$(serial)" -days 365 >"$scratch/$name.crt"
    fi
}

sign() {
    local key=$1 common_name=$2 issuer=$scratch/$3 profile=$4 days=$5
    openssl req -new -config "$scratch/profiles" -key "$key" -subj "/CN=$common_name" |
        openssl x509 -req -CA "$issuer.crt" -CAkey "$issuer.key" -set_serial "0x$(serial)" \
            -days "$days" -extfile "$scratch/profiles" -extensions "$profile" 2>/dev/null
}

# 127 bits, as the operator's.
serial() {
    echo "7f$(openssl rand -hex 15)"
}

new_key() {
    case $1 in
        P-*) openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:$1" ;;
        RSA-*) openssl genpkey -quiet -algorithm RSA -pkeyopt "rsa_keygen_bits:${1#RSA-}" ;;
        *) openssl genpkey -algorithm "$1" ;;
    esac
}

# add_keystores AUTHORITY...: in the truststores are these.
add_keystores() {
    local authority type
    echo changeit-not >password
    openssl pkcs12 -export -in tls.crt -inkey tls.key -name app -out keystore.p12 \
        -passout file:password
    {
        keytool -importkeystore -noprompt -srckeystore keystore.p12 -srcstorepass:file password \
            -destkeystore keystore.jks -deststoretype JKS -deststorepass:file password
        for type in p12 jks; do
            for authority; do
                keytool -importcert -noprompt -alias "$authority" -file "$scratch/$authority.crt" \
                    -storetype "${type/p12/pkcs12}" -keystore "truststore.$type" -storepass:file password
            done
        done
    } 2>/dev/null
}

# The operator's profiles, as extensions for openssl.
profiles() {
    local leaf="basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid"
    local authority="keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid"
    local name="subjectAltName = DNS:app.ns.svc"
    cat <<CONFIG
[req]
distinguished_name = subject
[subject]
[root]
basicConstraints = critical, CA:TRUE, pathlen:1
$authority
[intermediate]
basicConstraints = critical, CA:TRUE, pathlen:0
$authority
[leaf]
$leaf
$name
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
[server]
$leaf
$name
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
[client]
$leaf
$name
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
[no-san]
$leaf
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
[usage-not-critical]
$leaf
$name
keyUsage = digitalSignature
extendedKeyUsage = serverAuth, clientAuth
CONFIG
}

main "$@"
