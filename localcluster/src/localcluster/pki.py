"""The cluster's certificates: one authority, and a certificate for every server and every client.

In: names and addresses. Out: PEM files under pki/ and kubeconfig files that carry their certificates inside.
"""

import base64
import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = dt.timedelta(days=365)


@dataclass(frozen=True)
class Authority:
    """Signs the certificates of one cluster, and keeps what it made in a folder."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The certificate clients trust."""
        return self.folder / "ca.crt"

    def ensure(self) -> None:
        """Create the authority and the key that signs service-account tokens, unless they exist."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        service_accounts = self.folder / "service-accounts.key"
        if not service_accounts.exists():
            _write_key(service_accounts, rsa.generate_private_key(65537, 2048))  # RS256, as most clusters sign
        if self.certificate.exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localcluster-ca")])
        usage = _key_usage(certificate_authority=True)
        builder = _builder(name, name, key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
        _write_key(self.folder / "ca.key", key)
        _write(self.certificate, certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, file_name: str, common_name: str, *, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = ()
    ) -> tuple[Path, Path]:
        """Certificate and key for a client (`groups`.

        Its Kubernetes groups) and, with `hosts` (names and addresses), a server too.
        """
        certificate_file, key_file = self.folder / f"{file_name}.crt", self.folder / f"{file_name}.key"
        if certificate_file.exists():
            return certificate_file, key_file
        authority = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        signer = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101 - written by ensure()
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        name = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _builder(name, authority.subject, key.public_key())
        builder = builder.add_extension(_key_usage(certificate_authority=False), critical=True)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(h) for h in hosts]), critical=False
            )
        _write_key(key_file, key)
        # last, because its presence says that the pair is complete
        _write(certificate_file, builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return certificate_file, key_file

    def kubeconfig(self, path: Path, server: str, common_name: str, *, groups: tuple[str, ...] = ()) -> Path:
        """A kubeconfig for one client, whole in itself: it may be copied away."""
        certificate, key = self.issue(path.stem, common_name, groups=groups)
        user = {"client-certificate-data": _encoded(certificate), "client-key-data": _encoded(key)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "localcluster",
            "contexts": [{"name": "localcluster", "context": {"cluster": "localcluster", "user": common_name}}],
            "clusters": [
                {
                    "name": "localcluster",
                    "cluster": {"server": server, "certificate-authority-data": _encoded(self.certificate)},
                }
            ],
            "users": [{"name": common_name, "user": user}],
        }
        _write(path, yaml.safe_dump(document).encode())
        return path


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
    )
    return builder.not_valid_before(now - dt.timedelta(minutes=5)).not_valid_after(now + _LIFETIME)


def _key_usage(*, certificate_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=certificate_authority,
        crl_sign=certificate_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _write_key(path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    _write(path, key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, plain))


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by the owner alone."""
    partial = path.with_name(path.name + ".partial")
    partial.touch(mode=0o600)
    partial.write_bytes(content)
    partial.rename(path)
