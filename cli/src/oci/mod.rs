//! Filters in OCI registries: `proxy-wasm pull` and `proxy-wasm push`.
//!
//! [`reference`] has their names, [`credentials`] finds logins, [`client`] speaks the protocol, [`layout`] knows how a filter
//! lies in a manifest, [`signature`] checks signatures, [`store`] keeps what was pulled.

pub mod client;
mod credentials;
mod layout;
pub mod reference;
mod signature;
pub mod store;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::fail::{Fail, Verdict};
use crate::inspect::facts::Facts;
use crate::{out, source};
use client::{Client, RegistryArgs};
use reference::Reference;
use signature::Key;
use store::{Store, StoreArgs};

/// Fetch a filter from an OCI registry into the local store.
///
/// One that is there already is not asked for again, so nothing of the network is needed then.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The filter: oci://REGISTRY/NAME@sha256:DIGEST
    #[arg(value_name = "REF")]
    pub reference: String,

    /// Take a reference without a digest: whatever the tag stands for now
    #[arg(long)]
    pub allow_tag: bool,

    /// Take only what is signed with this public key, in cosign's format
    #[arg(long, value_name = "FILE")]
    pub verify: Option<PathBuf>,

    /// Copy the filter to this file, too
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub store: StoreArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Upload a filter to an OCI registry, and print its reference with the digest.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The filter: a .wasm file
    #[arg(value_name = "FILE")]
    pub filter: String,

    /// Where to: oci://REGISTRY/NAME:TAG
    #[arg(value_name = "REF")]
    pub reference: String,

    /// As an image with an archive, for what does not know artifacts
    #[arg(long)]
    pub image: bool,

    #[command(flatten)]
    pub registry: RegistryArgs,
}

fn reference(text: &str) -> Result<Reference, Fail> {
    Reference::parse(text).map_err(|cause| Fail::input(format!("{text} {cause}")))
}

/// Pulls one filter.
pub fn pull(args: &PullArgs, json: bool) -> Result<Verdict, Fail> {
    let reference = reference(&args.reference)?;
    if reference.digest.is_none() && !args.allow_tag {
        return Err(Fail::input(format!(
            "{} has no digest (@sha256:…), and a tag may stand for another filter tomorrow; --allow-tag takes it all the same",
            args.reference
        )));
    }
    let key = args.verify.as_ref().map(|path| {
        let name = path.to_string_lossy();
        Key::parse(&source::read(&name)?).map_err(|cause| Fail::input(format!("{name}: {cause}")))
    });
    let key = key.transpose()?;
    let store = Store::new(&args.store)?;
    let known = match &reference.digest {
        Some(digest) => store.read(digest)?.map(|filter| (digest.clone(), filter)),
        None => None,
    };
    let was_there = known.is_some();
    let (digest, filter) = match known {
        // Who asks for a signature gets it looked at again.
        Some((digest, filter)) if key.is_none() => (digest, filter),
        _ => fetch(&reference, args, &store, key.as_ref())?,
    };
    if let Some(path) = &args.output {
        std::fs::write(path, &filter)
            .map_err(|error| Fail::outside(format!("{}: {error}", path.display())))?;
    }
    let named = Reference { digest: Some(digest.clone()), ..reference };
    let path = store.filter(&digest);
    if json {
        out::json(&json!({
            "reference": named.to_string(),
            "digest": digest,
            "path": path,
            "bytes": filter.len(),
            "was_there": was_there,
            "signature_checked": key.is_some(),
        }))?;
    } else {
        out::text(&format!("{named}\n{}\n", path.display()))?;
    }
    Ok(Verdict::Good)
}

fn fetch(
    reference: &Reference,
    args: &PullArgs,
    store: &Store,
    key: Option<&Key>,
) -> Result<(String, Vec<u8>), Fail> {
    let mut client = Client::new(reference, &args.registry)?;
    let missing = || Fail::outside(format!("{reference} is not in its registry"));
    let top = client.manifest(reference.wanted())?.ok_or_else(missing)?;
    if let Some(key) = key {
        check_signature(&mut client, key, &top.digest, store)?;
    }
    let digest = top.digest.clone();
    let manifest = match layout::follow(&top.json) {
        Some(inner) => client.manifest(&inner)?.ok_or_else(missing)?,
        None => top,
    };
    let layer = layout::layer(&manifest.json)
        .map_err(|cause| Fail::outside(format!("{reference} is no filter: {cause}")))?;
    let partial = store.partial(&layer.digest)?;
    // Another command may have fetched it meanwhile, or under another tag.
    if let (None, Some(filter)) = (key, store.read(&digest)?) {
        partial.remove();
        return Ok((digest, filter));
    }
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(layer.bytes)
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let fetched = client.blob(&layer.digest, partial.path(), &|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    fetched?;
    let blob = source::read(&partial.path().to_string_lossy())?;
    let filter = if layer.is_archive {
        layout::unpack(&blob).map_err(|cause| {
            Fail::outside(format!("{reference} is no filter: its archive {cause}"))
        })?
    } else {
        blob
    };
    check_module(&filter)
        .map_err(|cause| Fail::outside(format!("{reference} is no filter: {cause}")))?;
    store.keep(&digest, &manifest.bytes, &filter)?;
    partial.remove();
    Ok((digest, filter))
}

fn check_module(bytes: &[u8]) -> Result<(), String> {
    if !bytes.starts_with(b"\0asm") {
        return Err("not a WebAssembly module: the file does not begin with \"\\0asm\"".into());
    }
    let not_whole = |error: wasmparser::BinaryReaderError| {
        format!("it is no whole module: {}", error.message())
    };
    Facts::of(bytes).map(|_| ()).map_err(not_whole)
}

fn check_signature(
    client: &mut Client,
    key: &Key,
    digest: &str,
    store: &Store,
) -> Result<(), Fail> {
    let unsigned = |cause: &str| Fail::outside(format!("{digest} is not taken: {cause}"));
    let manifest = client.manifest(&signature::tag(digest))?;
    let manifest = manifest.ok_or_else(|| unsigned("it has no signature"))?;
    for (blob, signature) in signature::layers(&manifest.json) {
        let partial = store.partial(&blob)?;
        client.blob(&blob, partial.path(), &|_| {})?;
        let text = source::read(&partial.path().to_string_lossy())?;
        partial.remove();
        if signature::is_good(key, &text, &signature, digest) {
            return Ok(());
        }
    }
    Err(unsigned("no signature of it was made with that key"))
}

/// Pushes one filter.
pub fn push(args: &PushArgs, json: bool) -> Result<Verdict, Fail> {
    let reference = reference(&args.reference)?;
    if reference.digest.is_some() {
        return Err(Fail::input(format!(
            "{}: the digest follows from what is pushed; name a tag",
            args.reference
        )));
    }
    let filter = source::read(&args.filter)?;
    check_module(&filter).map_err(|cause| Fail::input(format!("{}: {cause}", args.filter)))?;
    let package = if args.image {
        layout::image(&filter).map_err(|error| Fail::outside(format!("an archive: {error}")))?
    } else {
        layout::artifact(&filter)
    };
    let mut client = Client::new(&reference, &args.registry)?;
    for blob in &package.blobs {
        client.put_blob(blob)?;
    }
    let digest = source::digest(&package.manifest);
    let tag = reference.tag.as_deref().unwrap_or("latest");
    client.put_manifest(tag, layout::MANIFEST, &package.manifest)?;
    let named = Reference { digest: Some(digest.clone()), ..reference };
    if json {
        out::json(&json!({ "reference": named.to_string(), "digest": digest }))?;
    } else {
        out::text(&format!("{named}\n"))?;
    }
    Ok(Verdict::Good)
}
