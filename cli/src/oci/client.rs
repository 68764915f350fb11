//! A client of the OCI distribution protocol: manifests and blobs over HTTP.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::credentials::{self, Credentials};
use super::reference::Reference;
use crate::fail::Fail;
use crate::source;

/// How registries are reached.
#[derive(Clone, Debug, Default, Args)]
pub struct RegistryArgs {
    /// The name to log in with [default: from docker's or podman's files]
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,

    /// Read the password from stdin
    #[arg(long, requires = "username")]
    pub password_stdin: bool,

    /// Trust the certificates in this PEM file, and no others
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Speak HTTP without TLS; this is the default for localhost and 127.0.0.1 unless --ca is given
    #[arg(long, conflicts_with = "ca")]
    pub plain_http: bool,
}

/// See the module.
pub struct Client {
    agent: Agent,
    base: String,
    repository: String,
    credentials: Option<Credentials>,
    /// The value of Authorization, once a registry asked for it.
    authorization: Option<String>,
}

/// A manifest, and the digest of its bytes.
pub struct Manifest {
    pub bytes: Vec<u8>,
    pub json: Value,
    pub digest: String,
}

/// More than this no manifest has.
const MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
/// More than this no filter has.
pub const BLOB_BYTES: u64 = 256 * 1024 * 1024;

const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

impl Client {
    /// A client of a reference's repository.
    pub fn new(reference: &Reference, args: &RegistryArgs) -> Result<Self, Fail> {
        let host =
            reference.registry.rsplit_once(':').map_or(&*reference.registry, |(host, _)| host);
        let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        let plain = args.plain_http || (is_local && args.ca.is_none());
        let mut tls = TlsConfig::builder();
        if let Some(roots) = roots(args.ca.as_deref())? {
            tls = tls.root_certs(roots);
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .user_agent(concat!("proxy-wasm/", env!("CARGO_PKG_VERSION")))
            .build();
        let scheme = if plain { "http" } else { "https" };
        Ok(Self {
            agent: config.into(),
            base: format!("{scheme}://{}", reference.registry),
            repository: reference.name.clone(),
            credentials: given(args)?.or_else(|| credentials::find(&reference.registry)),
            authorization: None,
        })
    }

    /// A manifest by its digest or tag. One that was asked for by digest has it.
    pub fn manifest(&mut self, wanted: &str) -> Result<Option<Manifest>, Fail> {
        let url = self.url(&format!("manifests/{wanted}"));
        let mut response = self.send("GET", &url, &[("accept", MANIFESTS)], &[])?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.expect(&mut response, &[200], &format!("manifest {wanted}"))?;
        let bytes = response.body_mut().with_config().limit(MANIFEST_BYTES).read_to_vec();
        let bytes = bytes.map_err(|error| self.failed(&error))?;
        let digest = source::digest(&bytes);
        if wanted.starts_with("sha256:") && wanted != digest {
            return Err(Fail::outside(format!(
                "{}/{} answered a manifest of digest {digest} for {wanted}",
                self.base, self.repository
            )));
        }
        let json = serde_json::from_slice(&bytes)
            .map_err(|error| Fail::outside(format!("manifest {wanted} is not JSON: {error}")))?;
        Ok(Some(Manifest { bytes, json, digest }))
    }

    /// Fetches a blob into a file, where a part of it may be already. The file is whole and of that digest afterwards.
    pub fn blob(
        &mut self,
        digest: &str,
        partial: &Path,
        progress: &dyn Fn(u64),
    ) -> Result<(), Fail> {
        let disk = |error: io::Error| Fail::outside(format!("{}: {error}", partial.display()));
        let url = self.url(&format!("blobs/{digest}"));
        let mut file =
            File::options().create(true).append(true).read(true).open(partial).map_err(disk)?;
        let begun = file.metadata().map_err(disk)?.len();
        let range = format!("bytes={begun}-");
        let headers: &[(&str, &str)] = if begun > 0 { &[("range", &range)] } else { &[] };
        let mut response = self.send("GET", &url, headers, &[])?;
        match response.status().as_u16() {
            206 => progress(begun),
            // What is there is the whole, or the registry knows no ranges.
            416 => {}
            _ => {
                self.expect(&mut response, &[200], &format!("blob {digest}"))?;
                file.set_len(0).map_err(disk)?;
            }
        }
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            let mut body = response.into_body().into_reader();
            let mut buffer = vec![0; 64 * 1024];
            let mut size = file.metadata().map_err(disk)?.len();
            loop {
                let count = body.read(&mut buffer).map_err(|error| {
                    Fail::outside(format!(
                        "{url}: {error}; what came is kept, and the next try continues from there"
                    ))
                })?;
                if count == 0 {
                    break;
                }
                size += count as u64;
                if size > BLOB_BYTES {
                    return Err(Fail::outside(format!("blob {digest} is larger than 256 MiB")));
                }
                file.write_all(&buffer[..count]).map_err(disk)?;
                progress(count as u64);
            }
        }
        file.sync_all().map_err(disk)?;
        drop(file);
        let got = digest_of(partial).map_err(disk)?;
        if got == digest {
            return Ok(());
        }
        // It would be no better the next time.
        let _ = std::fs::remove_file(partial);
        Err(Fail::outside(format!("blob {digest} came with the digest {got}")))
    }

    /// Uploads a blob, unless the registry has it.
    pub fn put_blob(&mut self, bytes: &[u8]) -> Result<String, Fail> {
        let digest = source::digest(bytes);
        let url = self.url(&format!("blobs/{digest}"));
        if self.send("HEAD", &url, &[], &[])?.status() == StatusCode::OK {
            return Ok(digest);
        }
        let url = self.url("blobs/uploads/");
        let mut response = self.send("POST", &url, &[], &[])?;
        self.expect(&mut response, &[202], "an upload")?;
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| {
            Fail::outside(format!("{url}: the registry says not where to upload to"))
        })?;
        let mark = if location.contains('?') { '&' } else { '?' };
        let base = if location.starts_with('/') { self.base.as_str() } else { "" };
        let url = format!("{base}{location}{mark}digest={digest}");
        let headers = [("content-type", "application/octet-stream")];
        let mut response = self.send("PUT", &url, &headers, bytes)?;
        self.expect(&mut response, &[201], "an upload")?;
        Ok(digest)
    }

    /// Writes a manifest under a tag or its digest.
    pub fn put_manifest(&mut self, name: &str, kind: &str, bytes: &[u8]) -> Result<(), Fail> {
        let url = self.url(&format!("manifests/{name}"));
        let mut response = self.send("PUT", &url, &[("content-type", kind)], bytes)?;
        self.expect(&mut response, &[201], "the manifest")
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.repository)
    }

    /// Sends a request, and once more with what the registry asks for.
    fn send(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response<Body>, Fail> {
        let response = self.send_once(method, url, headers, body)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenge = response.headers().get("www-authenticate");
        let challenge =
            challenge.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        match self.authorize(&challenge)? {
            Some(authorization) if self.authorization.as_ref() != Some(&authorization) => {
                self.authorization = Some(authorization);
                self.send_once(method, url, headers, body)
            }
            _ => Ok(response),
        }
    }

    fn send_once(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response<Body>, Fail> {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // Another host's name may begin as this one's does.
        let rest = url.strip_prefix(&self.base);
        if let Some(authorization) =
            self.authorization.as_ref().filter(|_| rest.is_some_and(|rest| rest.starts_with('/')))
        {
            request = request.header("authorization", authorization);
        }
        let bad = |error: ureq::http::Error| Fail::outside(format!("{url}: {error}"));
        let sent = match method {
            "GET" | "HEAD" => self.agent.run(request.body(()).map_err(bad)?),
            _ => self.agent.run(request.body(body).map_err(bad)?),
        };
        sent.map_err(|error| self.failed(&error))
    }

    /// What a challenge of a registry asks for; `None` when there is nothing to answer it with.
    fn authorize(&self, challenge: &str) -> Result<Option<String>, Fail> {
        let basic = self.credentials.as_ref().map(|Credentials { name, password }| {
            format!("Basic {}", BASE64.encode(format!("{name}:{password}")))
        });
        let Some(parameters) = challenge.strip_prefix("Bearer ") else {
            return Ok(basic.filter(|_| challenge.to_ascii_lowercase().starts_with("basic")));
        };
        let parameter = |name: &str| {
            let start = parameters.find(&format!("{name}=\""))? + name.len() + 2;
            parameters[start..].split('"').next()
        };
        let Some(realm) = parameter("realm") else { return Ok(None) };
        if !realm.starts_with("https://") && self.base.starts_with("https://") {
            return Err(Fail::outside(format!(
                "{} asks for a login without TLS at {realm}",
                self.base
            )));
        }
        let mut request = self.agent.get(realm);
        for name in ["service", "scope"] {
            if let Some(value) = parameter(name) {
                request = request.query(name, value);
            }
        }
        if let Some(basic) = basic {
            request = request.header("authorization", basic);
        }
        let mut response = request.call().map_err(|error| self.failed(&error))?;
        self.expect(&mut response, &[200], "a token")?;
        let bytes = response.body_mut().with_config().limit(MANIFEST_BYTES).read_to_vec();
        let bytes = bytes.map_err(|error| self.failed(&error))?;
        let answer: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Fail::outside(format!("{realm}: the token is not JSON: {error}")))?;
        let token = answer["token"].as_str().or_else(|| answer["access_token"].as_str());
        Ok(token.map(|token| format!("Bearer {token}")))
    }

    /// An error unless the status is one of these.
    fn expect(
        &self,
        response: &mut Response<Body>,
        statuses: &[u16],
        what: &str,
    ) -> Result<(), Fail> {
        let status = response.status().as_u16();
        if statuses.contains(&status) {
            return Ok(());
        }
        let advice = match status {
            401 if self.credentials.is_none() => ": log in (docker login, or --username)",
            401 | 403 => ": this login may not",
            404 => ": it is not there",
            _ => "",
        };
        let said = response.body_mut().with_config().limit(64 * 1024).read_to_string();
        let said: Value =
            said.ok().and_then(|said| serde_json::from_str(&said).ok()).unwrap_or_default();
        let said = said["errors"][0]["message"].as_str().map(|said| format!(" ({said})"));
        Err(Fail::outside(format!(
            "{}/{}: {what}: status {status}{advice}{}",
            self.base,
            self.repository,
            said.unwrap_or_default()
        )))
    }

    fn failed(&self, error: &ureq::Error) -> Fail {
        Fail::outside(format!("{}: {error}", self.base))
    }
}

fn given(args: &RegistryArgs) -> Result<Option<Credentials>, Fail> {
    let Some(name) = &args.username else { return Ok(None) };
    let password = if args.password_stdin {
        let mut text = String::new();
        let read = io::stdin().read_to_string(&mut text);
        read.map_err(|error| Fail::input(format!("stdin: {error}")))?;
        text.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        let password = std::env::var("PROXY_WASM_PASSWORD");
        password.map_err(|_| {
            Fail::input(
                "--username: give the password by --password-stdin or in PROXY_WASM_PASSWORD",
            )
        })?
    };
    Ok(Some(Credentials { name: name.clone(), password }))
}

/// Which certificates are trusted: those of a file, else those of the system; `None` for those that came with this command.
pub fn roots(file: Option<&Path>) -> Result<Option<RootCerts>, Fail> {
    let system = || {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let known = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
        named.into_iter().chain(known.map(PathBuf::from)).find_map(|path| std::fs::read(path).ok())
    };
    let pem = match file {
        Some(path) => source::read(&path.to_string_lossy())?,
        None => match system() {
            Some(pem) => pem,
            None => return Ok(None),
        },
    };
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match (certificates.is_empty(), file) {
        (false, _) => Ok(Some(RootCerts::Specific(Arc::new(certificates)))),
        (true, None) => Ok(None),
        (true, Some(path)) => {
            Err(Fail::input(format!("{}: there is no certificate in it", path.display())))
        }
    }
}

fn digest_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    let digits: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{digits}"))
}
