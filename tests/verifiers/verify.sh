#!/usr/bin/env bash
# Verifies the cases in a directory with openssl and certtool, and reads their keystores with keytool and openssl.
# usage: verify.sh DIR     (README.md says what a case is, and what is printed)
# shellcheck disable=SC2317  # Most functions are called by their names, in check.
set -euo pipefail
export LC_ALL=C

failed=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

main() {
    local folder folders
    if (($# != 1)); then
        echo "usage: verify.sh DIR" >&2
        exit 2
    fi
    needs jq jq
    needs openssl openssl
    needs certtool gnutls-bin
    needs keytool default-jre-headless
    ((failed == 0)) || exit 1

    shopt -s nullglob
    folders=("$1"/*/)
    if ((${#folders[@]} == 0)); then
        fail - verify.sh "no cases in $1"
    fi
    for folder in "${folders[@]}"; do
        pushd "$folder" >/dev/null
        verify_case "$(basename "$folder")"
        popd >/dev/null
    done
    exit "$failed"
}

needs() {
    command -v "$1" >/dev/null || fail - "$1" "$1 is not installed; apt-get install $2"
}

fail() {
    local reason
    reason=$(tr -s '[:space:]' ' ' <<<"$3")
    printf '%s\t%s\tFAIL\t%s\n' "$1" "$2" "${reason% }"
    failed=1
}

# check NAME TOOL SUCCESS COMMAND...: if the command fails, what it printed is the reason.
check() {
    local name=$1 tool=$2 success=$3 said
    shift 3
    if said=$("$@" 2>&1); then
        printf '%s\t%s\t%s\n' "$name" "$tool" "$success"
    else
        fail "$name" "$tool" "$said"
        return 1
    fi
}

verify_case() {
    local name=$1 said
    if ! said=$(case_is_whole 2>&1); then
        fail "$name" verify.sh "$said"
        return
    fi
    host=$(jq -r .host case.json)
    wrong_host=$(jq -r .wrongHost case.json)

    verify_with openssl_accepts "$name" openssl sslserver sslclient "hostname mismatch"
    verify_with certtool_accepts "$name" certtool 1.3.6.1.5.5.7.3.1 1.3.6.1.5.5.7.3.2 \
        "The name in the certificate does not match the expected"

    keystore keystore.p12 "$name" openssl-p12 openssl_reads_keystore
    keystore keystore.p12 "$name" keytool-p12 keytool_reads_keystore PKCS12
    keystore truststore.p12 "$name" openssl-truststore-p12 openssl_reads_truststore
    keystore truststore.p12 "$name" keytool-truststore-p12 keytool_reads_truststore PKCS12
    keystore keystore.jks "$name" keytool-jks keytool_reads_keystore JKS
    keystore truststore.jks "$name" keytool-truststore-jks keytool_reads_truststore JKS
}

# verify_with ACCEPTS NAME TOOL SERVER CLIENT REFUSAL: SERVER and CLIENT are what the tool calls the usages, REFUSAL is
# what it says of a wrong host name.
verify_with() {
    local accepts=$1 name=$2 tool=$3 server=$4 client=$5 refusal=$6 purpose=$5
    if has_usage "server auth"; then
        purpose=$server
    fi
    if check "$name" "$tool" ok accepts_its_usages "$accepts" "$server" "$client"; then
        check "$name" "$tool" wrong-host-refused refuses_wrong_host "$accepts" "$purpose" "$refusal" || true
    fi
}

# keystore FILE NAME TOOL COMMAND...: where the case has that file.
keystore() {
    local file=$1 name=$2 tool=$3
    shift 3
    if [[ -e $file ]]; then
        check "$name" "$tool" ok "$@" "$file" || true
    fi
}

has_usage() {
    jq -e --arg usage "$1" '.usages | index($usage) != null' case.json >/dev/null
}

# The functions below run in an `if`, where set -e is off: what happens when a command fails is written out.

case_is_whole() {
    local file intermediates=false
    for file in case.json tls.crt tls.key ca.crt; do
        [[ -s $file ]] || { echo "$file is missing or empty"; return 1; }
    done
    jq -e '(.host, .wrongHost | type == "string" and . != "") and (.usages | length > 0)
        and (.usages - ["server auth", "client auth"] == [])' case.json >/dev/null ||
        { echo "case.json: host, wrongHost or usages is wrong"; return 1; }
    (($(grep -c 'BEGIN CERTIFICATE' tls.crt) > 1)) && intermediates=true
    [[ $(jq .intermediates case.json) == "$intermediates" ]] ||
        { echo "intermediates is wrong: for tls.crt it is $intermediates"; return 1; }
}

openssl_accepts() {
    openssl verify -x509_strict -no-CApath -no-CAstore -CAfile ca.crt -untrusted tls.crt \
        -verify_hostname "$1" -purpose "$2" tls.crt
}

certtool_accepts() {
    certtool --verify --verify-profile medium --load-ca-certificate ca.crt \
        --verify-hostname "$1" --verify-purpose "$2" --infile tls.crt
}

# The certificate is good for each usage of the case, and for no other.
accepts_its_usages() {
    local accepts=$1 server=$2 client=$3
    # Both tools would otherwise take the common name for the host.
    openssl x509 -in tls.crt -noout -ext subjectAltName 2>&1 | grep -q DNS: ||
        { echo "there is no DNS name in subjectAltName"; return 1; }
    accepts_as_listed "$accepts" "server auth" "$server" && accepts_as_listed "$accepts" "client auth" "$client"
}

accepts_as_listed() {
    local accepts=$1 usage=$2 purpose=$3
    if has_usage "$usage"; then
        "$accepts" "$host" "$purpose"
    elif "$accepts" "$host" "$purpose" >/dev/null 2>&1; then
        echo "accepted for $usage, which the case does not list"
        return 1
    fi
}

refuses_wrong_host() {
    local accepts=$1 purpose=$2 refusal=$3 said
    if said=$("$accepts" "$wrong_host" "$purpose" 2>&1); then
        echo "accepted for the wrong host"
        return 1
    elif [[ $said != *"$refusal"* ]]; then
        echo "the wrong host was refused for another reason: $said"
        return 1
    fi
}

openssl_reads_keystore() {
    local leaf
    leaf=$(fingerprints <tls.crt | head -n 1)
    key_is_that_of_the_certificate "$1" &&
        same "certificate of the key" "$leaf" "$(pkcs12 "$1" -nokeys -clcerts | fingerprints)" &&
        same "certificates" "$(fingerprints <tls.crt | sort)" \
            "$(pkcs12 "$1" -nokeys | fingerprints | sort)"
}

openssl_reads_truststore() {
    same "certificates" "$(fingerprints <ca.crt | sort)" \
        "$(pkcs12 "$1" -nokeys | fingerprints | sort)" &&
        same "private keys" 0 "$(pkcs12 "$1" -nocerts -noenc | grep -c 'BEGIN .*PRIVATE KEY')"
}

pkcs12() {
    local file=$1
    shift
    openssl pkcs12 -in "$file" -passin file:password "$@"
}

key_is_that_of_the_certificate() {
    same "public key" "$(openssl x509 -in tls.crt -noout -pubkey)" \
        "$(pkcs12 "$1" -nocerts -noenc | openssl pkey -pubout)"
}

keytool_reads_keystore() {
    local type=$1 file=$2 copy=$scratch/copy.p12
    keytool_lists "$type" "$file" PrivateKeyEntry 1 &&
        same "fingerprints" "$(fingerprints <tls.crt)" "$(listed_fingerprints)" || return 1

    # Listing does not open the key.
    rm -f "$copy"
    keytool -importkeystore -noprompt -srckeystore "$file" -srcstorepass:file password \
        -destkeystore "$copy" -deststoretype PKCS12 -deststorepass:file password 2>&1 &&
        key_is_that_of_the_certificate "$copy"
}

keytool_reads_truststore() {
    local type=$1 file=$2
    keytool_lists "$type" "$file" trustedCertEntry "$(fingerprints <ca.crt | wc -l)" &&
        same "fingerprints" "$(fingerprints <ca.crt | sort)" "$(listed_fingerprints | sort)"
}

# Without -storetype keytool says what the file really is.
keytool_lists() {
    local type=$1 file=$2 kind=$3 count=$4 listing=$scratch/listing
    keytool -list -v -keystore "$file" -storepass:file password >"$listing" 2>&1 ||
        { cat "$listing"; return 1; }
    same "type" "$type" "$(sed -n 's/^Keystore type: //p' "$listing")" &&
        same "entries" "$count $kind" \
            "$(sed -n 's/^Entry type: //p' "$listing" | sort | uniq -c | sed 's/^ *//')"
}

listed_fingerprints() {
    sed -n 's/^.*SHA256: //p' "$scratch/listing" | tr -d : | tr A-F a-f
}

# The SHA-256 of each certificate of a PEM text.
fingerprints() {
    local certificate
    awk '/BEGIN CERTIFICATE/ { body = ""; inside = 1; next }
        /END CERTIFICATE/ { print body; inside = 0 }
        inside { body = body $0 }' |
        while read -r certificate; do
            base64 -d <<<"$certificate" | sha256sum | cut -d ' ' -f 1
        done
}

same() {
    [[ $2 == "$3" ]] || { echo "$1: expected: ${2:-none}; found: ${3:-none}"; return 1; }
}

main "$@"
