"""The certificates of the progress server: a long-lived CA in a Secret for all replicas, and leaves signed by it.

Pods trust the CA alone (it travels in an annotation), so leaves can be renewed at any time and stay in the process.
"""

import asyncio
import base64
import ipaddress
import ssl
import tempfile
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rfuav_kube import clock, paths
from rfuav_kube.connection import Connection, ConnectionProblem, NotSent, Unknown

log = structlog.get_logger()

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=30)
ROTATE_EVERY = timedelta(days=10)
SKEW = timedelta(minutes=5)
CERT, KEY = "tls.crt", "tls.key"
RETRY = 0.2  # seconds


class Authority(NamedTuple):
    """A certificate authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate alone, as pods get it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def new_authority() -> Authority:
    """A fresh CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rfuav-operator progress CA")])
    now = clock.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


async def shared_authority(connection: Connection, namespace: str, name: str) -> Authority:
    """The CA of the Secret `name`, created if missing. Waits during an outage.

    Raises:
        ConnectionProblem: the Secret can neither be read nor created, or holds no CA.
    """
    path = f"{paths.secrets(namespace)}/{name}"
    while True:
        try:
            answer = await connection.request("GET", path)
            if answer.status == HTTPStatus.NOT_FOUND:
                answer = await connection.request("POST", paths.secrets(namespace), _secret(new_authority(), name))
        except (NotSent, Unknown) as error:
            if not await connection.reachable():
                log.warning("the CA of the progress server has not been read yet", error=str(error))
        else:
            if answer.ok:
                return _from_secret(answer.body.get("data") or {}, f"{namespace}/{name}")
            # Another replica made it at the same time, or the server is not well; anything else does not pass.
            if (
                answer.status not in (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
                and answer.status < HTTPStatus.INTERNAL_SERVER_ERROR
            ):
                raise ConnectionProblem(f"the CA of the progress server, Secret {namespace}/{name}: {answer.message}")
        await asyncio.sleep(RETRY)


def _secret(authority: Authority, name: str) -> dict[str, object]:
    key = authority.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    data = {CERT: base64.b64encode(authority.pem.encode()).decode(), KEY: base64.b64encode(key).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls", "data": data}


def _from_secret(data: dict[str, str], where: str) -> Authority:
    try:
        certificate = x509.load_pem_x509_certificate(base64.b64decode(data[CERT]))
        key = serialization.load_pem_private_key(base64.b64decode(data[KEY]), password=None)
    except (KeyError, ValueError) as error:
        raise ConnectionProblem(
            f"the Secret {where} holds no CA ({error}); delete it, and the operator creates a new one"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConnectionProblem(
            f"the Secret {where} holds no elliptic-curve key; delete it, and the operator creates a new one"
        )
    return Authority(certificate, key)


def names(namespace: str, service: str, url: str) -> list[str]:
    """What pods may call the server: the Service's names, and the host of the override."""
    found = [
        service,
        f"{service}.{namespace}",
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
    ]
    host = urlsplit(url).hostname
    return found if not host or host in found else [*found, host]


class Leaf:
    """The server's TLS context; its certificate is renewed every ten days."""

    def __init__(self, authority: Authority, hosts: list[str]) -> None:
        self._authority = authority
        self._hosts = hosts
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.renew()

    async def run(self) -> None:
        """Renew until cancelled; connections that are made after it get the new certificate."""
        while True:
            await asyncio.sleep(ROTATE_EVERY.total_seconds())
            self.renew()
            log.info("certificate renewed")

    def renew(self) -> None:
        """Make a new key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = clock.now()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._hosts[0][:64])]))
            .issuer_name(self._authority.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName([_general(host) for host in self._hosts]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._authority.key.public_key()), critical=False
            )
            .sign(self._authority.key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with tempfile.TemporaryDirectory() as folder:  # mode 0700; ssl reads certificates from files alone
            path = Path(folder) / "leaf.pem"
            path.write_bytes(pem)
            self.context.load_cert_chain(path)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
