//! The keys and certificates of a control plane: one authority that lives as long as the cluster.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

/// Makes certificates and kubeconfigs in a folder of the cluster.
pub(crate) struct Credentials {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Credentials {
    /// Makes an authority and the key pair of service accounts, in the folder `dir`.
    pub(crate) fn create(dir: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "pki-cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let service_accounts = KeyPair::generate()?;

        let credentials = Self { dir, authority };
        credentials.write("ca.crt", &credentials.authority.pem())?;
        credentials.write("ca.key", &credentials.authority.key().serialize_pem())?;
        credentials.write("service-accounts.key", &service_accounts.serialize_pem())?;
        credentials.write("service-accounts.pub", &service_accounts.public_key_pem())?;
        Ok(credentials)
    }

    /// The path of one of the files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes `NAME.crt` and `NAME.key`: a server of these names and addresses.
    pub(crate) fn server(&self, name: &str, dns: &[&str], ips: &[IpAddr]) -> anyhow::Result<()> {
        let names = dns.iter().map(ToString::to_string);
        let names: Vec<_> = names.chain(ips.iter().map(ToString::to_string)).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(name, params)
    }

    /// Writes `NAME.crt` and `NAME.key`: what Kubernetes takes for `user`, a member of `group`.
    pub(crate) fn client(&self, name: &str, user: &str, group: Option<&str>) -> anyhow::Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params)
    }

    /// Writes into `path` how the client `name` reaches `server`. (JSON is YAML.)
    pub(crate) fn kubeconfig(&self, name: &str, server: &str, path: &Path) -> anyhow::Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "pki-cluster",
                "cluster": {"server": server, "certificate-authority": self.file("ca.crt")},
            }],
            "users": [{
                "name": name,
                "user": {
                    "client-certificate": self.file(&format!("{name}.crt")),
                    "client-key": self.file(&format!("{name}.key")),
                },
            }],
            "contexts": [{
                "name": "pki-cluster",
                "context": {"cluster": "pki-cluster", "user": name},
            }],
            "current-context": "pki-cluster",
        });
        write(path, &format!("{config:#}\n"))
    }

    fn issue(&self, name: &str, mut params: CertificateParams) -> anyhow::Result<()> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        self.write(&format!("{name}.crt"), &certificate.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        write(&self.file(name), content)
    }
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
