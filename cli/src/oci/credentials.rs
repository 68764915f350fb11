//! Names and passwords for registries, from where docker and podman keep them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

/// A name and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub name: String,
    pub password: String,
}

/// Looks for those of a registry.
pub fn find(registry: &str) -> Option<Credentials> {
    files().into_iter().find_map(|path| {
        let text = std::fs::read(&path).ok()?;
        of_file(&serde_json::from_slice(&text).ok()?, registry)
    })
}

fn files() -> Vec<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = path("HOME");
    [
        path("REGISTRY_AUTH_FILE"),
        path("DOCKER_CONFIG").map(|folder| folder.join("config.json")),
        path("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
        home.clone().map(|home| home.join(".docker/config.json")),
        home.map(|home| home.join(".config/containers/auth.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_file(file: &Value, registry: &str) -> Option<Credentials> {
    let helper = file["credHelpers"][registry].as_str().or_else(|| {
        let is_listed = file["auths"].get(registry).is_some();
        file["credsStore"].as_str().filter(|_| is_listed)
    });
    if let Some(found) = helper.and_then(|helper| ask(helper, registry)) {
        return Some(found);
    }
    let auths = file["auths"].as_object()?;
    // Docker writes its own registry with a scheme and a path.
    let is_ours = |key: &str| {
        let host = key.split_once("://").map_or(key, |(_, host)| host);
        host.split('/').next() == Some(registry)
    };
    let entry = auths.iter().find(|(key, _)| is_ours(key))?.1;
    let decoded = BASE64.decode(entry["auth"].as_str()?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (name, password) = text.split_once(':')?;
    Some(Credentials { name: name.into(), password: password.into() })
}

/// Asks `docker-credential-NAME`.
fn ask(helper: &str, registry: &str) -> Option<Credentials> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !helper.bytes().all(is_name) {
        return None;
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(registry.as_bytes()).ok()?;
    let output = child.wait_with_output().ok().filter(|output| output.status.success())?;
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(Credentials {
        name: answer["Username"].as_str()?.into(),
        password: answer["Secret"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_of_files() {
        let file = json!({ "auths": {
            "https://index.example.com/v1/": { "auth": BASE64.encode("me:p:w") },
            "localhost:5000": { "auth": "no base64!" },
        }});
        let found = of_file(&file, "index.example.com").expect("credentials");
        assert_eq!((found.name.as_str(), found.password.as_str()), ("me", "p:w"));
        assert!(of_file(&file, "localhost:5000").is_none());
        assert!(of_file(&file, "example.com").is_none());
    }
}
