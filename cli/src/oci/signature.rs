//! Signatures of filters, as cosign makes them with a key: `cosign sign --key cosign.key REFERENCE`.
//!
//! They are an artifact of their own, under a tag made of the digest that they are for. Each of its layers is a text that names
//! that digest, and has the signature of the text as an annotation. See the specification in cosign's repository,
//! `specs/SIGNATURE_SPEC.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::Value;

use super::reference::hexadecimal;

const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// A public key: ECDSA over P-256, which is what cosign makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Vec<u8>);

/// What stands before the point of a key of that kind (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl Key {
    /// Reads a key in PEM.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(pem).map_err(|_| "it is no PEM")?;
        let inner = text
            .split_once("-----BEGIN PUBLIC KEY-----")
            .and_then(|(_, rest)| Some(rest.split_once("-----END PUBLIC KEY-----")?.0))
            .ok_or("it has no line -----BEGIN PUBLIC KEY-----")?;
        let digits: String = inner.split_whitespace().collect();
        let der = BASE64.decode(digits).map_err(|error| format!("it is no PEM: {error}"))?;
        match der.strip_prefix(&P256) {
            Some(point) if point.len() == 65 => Ok(Self(point.to_vec())),
            _ => Err("it is no key of ECDSA over P-256".into()),
        }
    }

    /// Whether a signature, in base64, is of that text.
    fn made(&self, signature: &str, text: &[u8]) -> bool {
        let Ok(signature) = BASE64.decode(signature) else { return false };
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(text, &signature).is_ok()
    }
}

/// The tag of the signatures of a manifest.
pub fn tag(digest: &str) -> String {
    format!("sha256-{}.sig", hexadecimal(digest).unwrap_or_default())
}

/// The blobs of signatures, each with its signature.
pub fn layers(manifest: &Value) -> Vec<(String, String)> {
    let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |layer: &Value| {
        let digest = layer["digest"].as_str().filter(|digest| hexadecimal(digest).is_some())?;
        Some((digest.to_owned(), layer["annotations"][ANNOTATION].as_str()?.to_owned()))
    };
    layers.iter().filter_map(of).collect()
}

/// Whether a text is signed with that key and is about that digest.
pub fn is_good(key: &Key, text: &[u8], signature: &str, digest: &str) -> bool {
    if !key.made(signature, text) {
        return false;
    }
    let text: Value = serde_json::from_slice(text).unwrap_or_default();
    text["critical"]["image"]["docker-manifest-digest"] == digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert!(Key::parse(b"").is_err());
        assert!(Key::parse(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----").is_err());
        assert_eq!(
            tag(&format!("sha256:{}", "0".repeat(64))),
            format!("sha256-{}.sig", "0".repeat(64))
        );
    }
}
