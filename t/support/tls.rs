//! Certificates for tests, made by the command openssl.

use super::Nginx;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs openssl in a folder and returns what it prints.
pub(crate) fn openssl(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output();
    let output = output.expect("the command openssl (Debian: package openssl)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A new key `NAME.key` with a certificate `NAME.pem` for itself.
pub(crate) fn self_signed(dir: &Path, name: &str, subject: &str) {
    request(dir, name, subject, &["-x509"]);
}

/// A new key with a certificate for `host`, signed by the certificate `ca`.
pub(crate) fn signed_by(dir: &Path, ca: &str, name: &str, host: &str) {
    let (ca_key, ca_pem) = (format!("{ca}.key"), format!("{ca}.pem"));
    let alternative = format!("subjectAltName=DNS:{host}");
    let leaf = "basicConstraints=critical,CA:FALSE";
    let by = ["-x509", "-CA", &ca_pem, "-CAkey", &ca_key, "-addext", &alternative, "-addext", leaf];
    request(dir, name, &format!("/CN={host}"), &by);
}

fn request(dir: &Path, name: &str, subject: &str, more: &[&str]) {
    let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let files = ["-keyout", &key, "-out", &pem, "-subj", subject, "-days", "2"];
    openssl(dir, &[&["req"], &curve[..], &files[..], more].concat());
}

/// The files of `dir` beside nginx's configuration, where nginx looks for certificates.
pub(crate) fn with_files(mut nginx: Nginx, dir: &Path) -> Nginx {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        nginx = nginx.file(&format!("conf/{name}"), fs::read(&path).expect("a file"));
    }
    nginx
}
