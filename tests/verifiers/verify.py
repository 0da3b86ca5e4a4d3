#!/usr/bin/env python3
"""Verifies the cases in a directory with Python's cryptography, and lints them with pkilint.

usage: verify.py DIR     (README.md says what a case is, and what is printed)
"""

import contextlib
import io
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.verification import (
        Criticality,
        ExtensionPolicy,
        PolicyBuilder,
        Store,
        VerificationError,
    )
    from pkilint.bin import lint_pkix_cert
except ImportError as error:
    print(f"-\tpython\tFAIL\t{error}; run this in the virtual environment that README.md describes")
    sys.exit(1)

SERVER, CLIENT = "server auth", "client auth"


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: verify.py DIR", file=sys.stderr)
        return 2
    directory = Path(sys.argv[1])
    folders = sorted(path for path in directory.glob("*") if path.is_dir())
    if not folders:
        report("-", "python", [f"no cases in {directory}"])
    sound = [check(folder) for folder in folders]
    return 0 if sound and all(sound) else 1


@dataclass
class Case:
    """A case, as README.md describes it."""

    name: str
    host: str
    wrong_host: str
    usages: list[str]
    chain: list[x509.Certificate]
    roots: list[x509.Certificate]


def check(folder: Path) -> bool:
    try:
        case = read(folder)
    except (OSError, ValueError, KeyError) as error:
        return report(folder.name, "python", [f"{type(error).__name__}: {error}"])

    sound = report(case.name, "cryptography", usage_faults(case))
    if sound:
        sound = report(case.name, "cryptography", host_faults(case), "wrong-host-refused")
    return report(case.name, "pkilint", findings(case)) and sound


def report(name: str, tool: str, faults: list[str], success: str = "ok") -> bool:
    """Prints a line for each fault, or else one that there is none."""
    for fault in faults:
        print(name, tool, "FAIL", " ".join(fault.split()), sep="\t")
    if not faults:
        print(name, tool, success, sep="\t")
    return not faults


def read(folder: Path) -> Case:
    said = json.loads((folder / "case.json").read_text())
    case = Case(
        name=folder.name,
        host=said["host"],
        wrong_host=said["wrongHost"],
        usages=said["usages"],
        chain=x509.load_pem_x509_certificates((folder / "tls.crt").read_bytes()),
        roots=x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes()),
    )
    if not case.usages or not set(case.usages) <= {SERVER, CLIENT}:
        raise ValueError(f"usages must be {SERVER!r}, {CLIENT!r} or both")
    if said["intermediates"] != (len(case.chain) > 1):
        raise ValueError(f"intermediates is wrong: tls.crt has {len(case.chain) - 1} of them")
    return case


def usage_faults(case: Case) -> list[str]:
    """The certificate is to be good for each usage of the case, and for no other."""
    builder = PolicyBuilder().store(Store(case.roots))
    faults = []
    for usage, verifier in (
        (SERVER, builder.build_server_verifier(x509.DNSName(case.host))),
        (CLIENT, builder.build_client_verifier()),
    ):
        fault = refusal(verifier, case)
        if usage in case.usages and fault:
            faults.append(f"{usage}: {fault}")
        elif usage not in case.usages and not fault:
            faults.append(f"accepted for {usage}, which the case does not list")
    return faults


def host_faults(case: Case) -> list[str]:
    """The right host is to be accepted and the wrong one refused, whatever the usages are.

    By itself the library checks host names only of certificates for servers.
    """
    any_usage = ExtensionPolicy.webpki_defaults_ee().may_be_present(
        x509.ExtendedKeyUsage, Criticality.NON_CRITICAL, None
    )
    builder = (
        PolicyBuilder()
        .store(Store(case.roots))
        .extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=any_usage
        )
    )
    right = refusal(builder.build_server_verifier(x509.DNSName(case.host)), case)
    wrong = refusal(builder.build_server_verifier(x509.DNSName(case.wrong_host)), case)
    faults = [f"the right host was refused: {right}"] if right else []
    return faults if wrong else [*faults, "accepted for the wrong host"]


def refusal(verifier, case: Case) -> str | None:
    try:
        verifier.verify(case.chain[0], case.chain[1:])
    except VerificationError as error:
        return str(error)
    return None


def findings(case: Case) -> list[str]:
    """What lint_pkix_cert finds, of NOTICE or above, in each certificate of the case."""
    return [
        f"{file} certificate {place}: {finding}"
        for file, certificates in (("tls.crt", case.chain), ("ca.crt", case.roots))
        for place, certificate in enumerate(certificates, start=1)
        for finding in lint(certificate)
    ]


def lint(certificate: x509.Certificate) -> list[str]:
    said = io.StringIO()
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(certificate.public_bytes(Encoding.PEM))
        file.flush()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = lint_pkix_cert.main(["lint", "-s", "NOTICE", "-f", "JSON", file.name])
    try:
        results = json.loads(said.getvalue())["results"]
    except ValueError:
        return [f"lint_pkix_cert failed with status {status}: {said.getvalue()}"]
    return [
        "{code} ({severity}) @ {place}: {message}".format(place=result["node_path"], **finding)
        for result in results
        for finding in result["finding_descriptions"]
    ]


if __name__ == "__main__":
    sys.exit(main())
