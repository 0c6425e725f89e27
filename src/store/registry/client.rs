//! HTTP clients: whom they trust over TLS, and which addresses they connect to.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder};
use std::net::{IpAddr, SocketAddr};

/// Makes ring the cryptography of TLS in this process, which no HTTP client can be made without.
pub fn use_ring() {
    // Fails where another part of the process was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Builds a client that trusts whom the system trusts.
///
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` mean what they mean to Ollama, whose client is Go's: the file replaces the
/// system's file and leaves its folders, the folders replace the folders. On a system without any certificates the
/// client is made all the same, for plain http.
///
/// # Errors
/// Those of the builder.
pub fn build(builder: ClientBuilder) -> reqwest::Result<Client> {
    use_ring();
    #[cfg(all(unix, not(target_vendor = "apple")))]
    let builder = builder.tls_backend_preconfigured(authorities::tls());
    builder.build()
}

#[cfg(all(unix, not(target_vendor = "apple")))]
mod authorities {
    use rustls::{ClientConfig, RootCertStore};
    use std::path::Path;

    /// Where systems keep certificates one a file, as Go's `crypto/x509` looks for them.
    const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

    pub fn tls() -> ClientConfig {
        let mut found = rustls_native_certs::load_native_certs();
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if is_set("SSL_CERT_FILE") && !is_set("SSL_CERT_DIR") {
            for folder in FOLDERS.map(Path::new).into_iter().filter(|f| f.is_dir()) {
                let more = rustls_native_certs::load_certs_from_paths(None, Some(folder));
                found.certs.extend(more.certs);
            }
        }
        for error in found.errors {
            tracing::warn!("certificates of authorities: {error}");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(
                "no certificates of authorities are there, so no https registry is trusted: \
                 install ca-certificates, or set SSL_CERT_FILE"
            );
        }
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// Addresses that the internet does not reach.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_multicast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
        }
    }
}

/// Resolves names to public addresses alone, for redirects of public registries: the answer is judged, and what was
/// judged is connected to, whatever the name resolves to a moment later.
pub(super) struct PublicAlone;

impl Resolve for PublicAlone {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|a| !is_private(a.ip())).collect();
            if public.is_empty() {
                let why = format!("{} is a name in a private network", name.as_str());
                return Err(why.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::Url;

    /// Whatever an address is written as, it is judged by what it is.
    #[test]
    fn private_addresses_in_every_form() {
        let host = |text: &str| {
            let url = Url::parse(&format!("http://{text}/")).unwrap();
            let host = url.host_str().unwrap().trim_matches(['[', ']']).to_owned();
            host.parse::<IpAddr>()
                .unwrap_or_else(|_| panic!("{text} is no address"))
        };
        for text in [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "127.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "169.254.169.254",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "[::]",
            "[fe80::1]",
            "[fd00::1]",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(is_private(host(text)), "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "[2606:4700::1111]"] {
            assert!(!is_private(host(text)), "{text}");
        }
    }

    #[tokio::test]
    async fn names_of_this_machine_do_not_resolve() {
        let resolved = PublicAlone.resolve("localhost".parse().unwrap()).await;
        let error = resolved.err().expect("refused").to_string();
        assert_eq!(error, "localhost is a name in a private network");
    }
}
