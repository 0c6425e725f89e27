//! Registries over https: whom the server trusts, and what it says where it does not.

use std::io::{Read, Write};
use std::net::TcpListener;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::registry::{Model, last_line};
use crate::scripted::Scripted;
use crate::server::Server;

/// A file of `kernels-tests/served/tls`.
fn file(name: &str) -> String {
    format!(
        "{}/kernels-tests/served/tls/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// A registry of the model that shows this certificate.
fn registry(model: &Model, certificate: &str) -> Scripted {
    let chain = CertificateDer::from_pem_file(file(certificate)).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).expect("a key");
    let provider = rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![chain], key)
        });
    Scripted::start_tls(config.expect("a certificate and its key"), model.answers())
}

/// What a server with these variables says at last to a pull.
async fn pulled(variables: &[(&str, &str)], name: &str, insecure: bool) -> String {
    let server = Server::start(variables);
    last_line(&server, "/api/pull", name, insecure).await
}

const UNKNOWN: &str = "certificate signed by unknown authority (SSL_CERT_FILE can name a file";

#[tokio::test]
async fn certificates_are_trusted_as_the_system_says() {
    let model = Model::tiny();
    for (certificate, trusted, wanted) in [
        ("signed.pem", "authority.pem", "\"success\""),
        ("cert.pem", "cert.pem", "\"success\""),
        ("signed.pem", "cert.pem", UNKNOWN),
        ("cert.pem", "authority.pem", UNKNOWN),
        ("expired.pem", "authority.pem", "x509: certificate expired"),
        ("elsewhere.pem", "authority.pem", "not valid for name"),
        (
            "own-authority.pem",
            "own-authority.pem",
            "make it with basicConstraints=CA:FALSE",
        ),
    ] {
        let registry = registry(&model, certificate);
        let trusted_file = file(trusted);
        let variables = [("SSL_CERT_FILE", trusted_file.as_str())];
        let line = pulled(&variables, &registry.name(), false).await;
        assert!(line.contains(wanted), "{certificate} {trusted}: {line}");
    }
    let registry = registry(&model, "signed.pem");
    let line = pulled(&[], &registry.name(), false).await;
    assert!(line.contains(UNKNOWN), "the system knows no test: {line}");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(file("authority.pem"), folder.path().join("company.pem")).expect("a copy");
    let folder = folder.path().to_str().expect("a plain path");
    let line = pulled(&[("SSL_CERT_DIR", folder)], &registry.name(), false).await;
    assert!(line.contains("\"success\""), "{line}");
}

/// `insecure` is http instead of https. It is not https that anybody may speak.
#[tokio::test]
async fn insecure_trusts_no_certificate() {
    let model = Model::tiny();
    let secure = registry(&model, "cert.pem");
    let line = pulled(&[], &secure.name(), true).await;
    assert!(
        line.contains("pull model manifest: Get \\\"http://127"),
        "{line}"
    );
    assert!(secure.asked().is_empty());
    let plain = Scripted::start(model.answers());
    let line = pulled(&[], &plain.name(), false).await;
    assert!(
        line.contains("pull model manifest: Get \\\"https://127"),
        "{line}"
    );
    assert!(plain.asked().is_empty());
}

#[tokio::test]
async fn old_tls_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        let mut stream = listener.accept().expect("a client").0;
        let _ = stream.read(&mut [0; 4096]);
        // A hello of TLS 1.0: version, random bytes, no session, AES-128-CBC with SHA-1.
        let mut hello = vec![0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
        hello.extend([7; 32]);
        hello.extend([0, 0, 0x2f, 0]);
        stream.write_all(&hello).expect("it is sent");
        let _ = stream.read(&mut [0; 4096]);
    });
    let line = pulled(&[], &format!("{address}/ns/m:t"), false).await;
    assert!(
        line.contains("pull model manifest: Get \\\"https://127"),
        "{line}"
    );
}

/// As in a container without the package of certificates.
#[tokio::test]
async fn without_certificates_plain_http_works() {
    let nothing = [
        ("SSL_CERT_FILE", "/nonexistent"),
        ("SSL_CERT_DIR", "/nonexistent"),
    ];
    let model = Model::tiny();
    let server = Server::start(&nothing);
    let plain = Scripted::start(model.answers());
    let line = last_line(&server, "/api/pull", &plain.name(), true).await;
    assert!(line.contains("\"success\""), "{line}");
    let secure = registry(&model, "signed.pem");
    let line = last_line(&server, "/api/pull", &secure.name(), false).await;
    assert!(line.contains(UNKNOWN), "{line}");
    assert!(
        server.log().contains("install ca-certificates"),
        "{}",
        server.log()
    );
    let listed = crate::server::binary()
        .arg("list")
        .env("OLLAMA_HOST", &server.address)
        .envs(nothing)
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(
        listed.status.success() && text.contains("/ns/m:t"),
        "{listed:?}"
    );
}
