//! How filters lie in registries: as artifacts, whose layer is the module, and as images, whose layer is an archive.

use std::io::{Read, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::client::BLOB_BYTES;
use crate::source;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const WASM_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const WASM_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const IMAGE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Layers that are a module as they are.
const WASM_LAYERS: [&str; 3] =
    [WASM_LAYER, "application/vnd.wasm.content.layer.v1+wasm", "application/wasm"];

/// The name that images of filters have for it.
const PLUGIN: &str = "plugin.wasm";

/// The blob that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub digest: String,
    pub bytes: u64,
    /// It is an archive.
    pub is_archive: bool,
}

/// The digest of the manifest that an index is followed to; `None` when it is no index.
pub fn follow(manifest: &Value) -> Option<String> {
    let entries = manifest["manifests"].as_array()?;
    let is_wasm = |entry: &&Value| {
        let platform = &entry["platform"];
        platform["architecture"] == "wasm" || platform["os"] == "wasi" || platform["os"] == "wasip1"
    };
    // Attestations of a build are no images.
    let is_image = |entry: &&Value| entry["platform"]["os"] != "unknown";
    let entry = entries.iter().find(is_wasm).or_else(|| entries.iter().find(is_image))?;
    entry["digest"].as_str().map(Into::into)
}

/// The layer with the filter. The error says what the manifest has instead.
pub fn layer(manifest: &Value) -> Result<Layer, String> {
    let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let kind = |layer: &Value| layer["mediaType"].as_str().unwrap_or_default().to_owned();
    let of = |layer: &Value, is_archive| {
        let digest = layer["digest"].as_str().unwrap_or_default().to_owned();
        if super::reference::hexadecimal(&digest).is_none() {
            return Err(format!("its layer has the digest {digest:?}"));
        }
        Ok(Layer { digest, bytes: layer["size"].as_u64().unwrap_or_default(), is_archive })
    };
    if let Some(found) = layers.iter().find(|layer| WASM_LAYERS.contains(&kind(layer).as_str())) {
        return of(found, false);
    }
    let is_archive = |layer: &&Value| {
        let kind = kind(layer);
        kind.contains(".tar") && !kind.ends_with("+zstd")
    };
    match layers.iter().rfind(is_archive) {
        Some(found) => of(found, true),
        None => {
            let kinds: Vec<String> = layers.iter().map(kind).collect();
            Err(format!("it has no layer with a filter, but {kinds:?}"))
        }
    }
}

/// The module in an archive, which may be compressed. The error completes a sentence that begins with the archive.
pub fn unpack(archive: &[u8]) -> Result<Vec<u8>, String> {
    let plain: Box<dyn Read + '_> = if archive.starts_with(b"\x1f\x8b") {
        Box::new(GzDecoder::new(archive))
    } else {
        Box::new(archive)
    };
    // What is small may become large.
    let mut archive = tar::Archive::new(plain.take(2 * BLOB_BYTES));
    let broken = |error: std::io::Error| format!("is broken: {error}");
    let mut found: Option<(bool, Vec<u8>)> = None;
    let mut others = 0;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(broken)?.into_owned();
        let is_plugin = path.file_name().is_some_and(|name| name == PLUGIN);
        if !is_plugin && path.extension().is_none_or(|end| end != "wasm") {
            continue;
        }
        if entry.size() > BLOB_BYTES {
            return Err("holds a module of more than 256 MiB".into());
        }
        if found.as_ref().is_some_and(|(is_plugin, _)| *is_plugin) {
            continue;
        }
        others += u32::from(!is_plugin);
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        found = Some((is_plugin, bytes));
    }
    match found {
        Some((true, bytes)) => Ok(bytes),
        Some((false, bytes)) if others == 1 => Ok(bytes),
        Some(_) => Err(format!("holds several modules, none of which is {PLUGIN}")),
        None => Err(format!("holds no {PLUGIN}")),
    }
}

/// What is uploaded for a filter: blobs, and the manifest that names them.
pub struct Package {
    pub blobs: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
}

/// A filter as an artifact.
pub fn artifact(filter: &[u8]) -> Package {
    package((WASM_CONFIG, b"{}".to_vec()), (WASM_LAYER, filter.to_vec()), &json!({}))
}

/// A filter as an image.
pub fn image(filter: &[u8]) -> std::io::Result<Package> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(filter.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append_data(&mut header, PLUGIN, filter)?;
    let archive = archive.into_inner()?;
    let mut compressed = GzEncoder::new(Vec::new(), Compression::default());
    compressed.write_all(&archive)?;
    let config = json!({
        "architecture": "wasm",
        "os": "wasip1",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [source::digest(&archive)] },
    });
    let config = (IMAGE_CONFIG, config.to_string().into_bytes());
    let annotations = json!({ "module.wasm.image/variant": "compat" });
    Ok(package(config, (IMAGE_LAYER, compressed.finish()?), &annotations))
}

fn package(
    (config_kind, config): (&str, Vec<u8>),
    (layer_kind, layer): (&str, Vec<u8>),
    annotations: &Value,
) -> Package {
    let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": source::digest(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config_kind, &config),
        "layers": [descriptor(layer_kind, &layer)],
        "annotations": annotations,
    });
    Package { blobs: vec![config, layer], manifest: manifest.to_string().into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_read_back() {
        let filter = b"\0asm\x01\0\0\0".to_vec();
        let artifact = artifact(&filter);
        let manifest: Value = serde_json::from_slice(&artifact.manifest).expect("JSON");
        let found = layer(&manifest).expect("a layer");
        assert_eq!((found.digest, found.is_archive), (source::digest(&filter), false));
        let image = image(&filter).expect("an image");
        let manifest: Value = serde_json::from_slice(&image.manifest).expect("JSON");
        assert!(layer(&manifest).expect("a layer").is_archive);
        assert_eq!(unpack(&image.blobs[1]), Ok(filter));
    }

    #[test]
    fn what_is_neither_is_told() {
        assert!(layer(&json!({ "layers": [] })).is_err());
        let other = json!({ "layers": [{ "mediaType": "text/plain" }] });
        assert!(layer(&other).expect_err("an error").contains("text/plain"));
        let bad = json!({ "layers": [{ "mediaType": WASM_LAYER, "digest": "../x" }] });
        assert!(layer(&bad).is_err());
        assert!(unpack(b"\x1f\x8bnonsense").is_err());
        assert_eq!(unpack(&[0; 1024]), Err("holds no plugin.wasm".into()));
    }

    #[test]
    fn an_index_is_followed_to_its_image() {
        let index = json!({ "manifests": [
            { "digest": "a", "platform": { "os": "unknown" } },
            { "digest": "b", "platform": { "os": "linux" } },
            { "digest": "c", "platform": { "os": "wasip1", "architecture": "wasm" } },
        ]});
        assert_eq!(follow(&index).as_deref(), Some("c"));
        assert_eq!(follow(&json!({})), None);
    }
}
