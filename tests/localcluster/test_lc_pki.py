import base64
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcluster.pki import Authority


def test_certificates_are_signed_by_the_authority_and_carry_names_and_groups(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    authority.ensure()
    root = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    file, key = authority.issue("n", "system:node:a", groups=("system:nodes",), hosts=("a", "10.0.0.1"))
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    certificate.verify_directly_issued_by(root)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:a"
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(usages)
    assert key.stat().st_mode & 0o077 == 0


def test_a_second_up_keeps_what_the_first_made(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    authority.ensure()
    before = {p.name: p.read_bytes() for p in authority.folder.iterdir()} | {
        "x": authority.issue("x", "x")[0].read_bytes()
    }
    authority.ensure()
    assert authority.issue("x", "x")[0].read_bytes() == before["x"]
    assert authority.certificate.read_bytes() == before["ca.crt"]


def test_a_kubeconfig_is_whole_in_itself(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    authority.ensure()
    path = authority.kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", "admin", groups=("system:masters",))
    document = yaml.safe_load(path.read_text())
    assert (
        base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"])
        == authority.certificate.read_bytes()
    )
    assert base64.b64decode(document["users"][0]["user"]["client-key-data"]).startswith(b"-----BEGIN EC PRIVATE KEY")
    assert path.stat().st_mode & 0o077 == 0
