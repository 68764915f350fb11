//! Text as a file of scenarios, in both languages: it is read, or what is wrong has a place in it.

use proxy_wasm_cli::scenario::Scenario;

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for name in ["a.test.yaml", "a.test.toml"] {
        let Err(wrong) = Scenario::parse(name, text) else { continue };
        super::says_why(&wrong.to_string());
        let place = wrong.place.expect("a place");
        // Parsers may count a line behind the last one.
        assert!(place.line >= 1 && place.line <= text.lines().count() + 2, "{wrong}: {text:?}");
    }
}
