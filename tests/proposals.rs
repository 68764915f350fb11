//! Proposals of WebAssembly: what is on works, and of what is off the error says so.

use crate::world::{Filter, sim_host};
use resty_proxy_wasm::vm::proposals::PROPOSALS;
use resty_proxy_wasm::vm::{
    BASELINES, Cache, CodeStore, KeepError, Kept, Options, Sources, StoreError,
};

/// A module that needs a proposal: what it declares beside its memory.
fn sample(proposal: &str) -> &'static str {
    match proposal {
        "mutable globals" => r#"(global (export "g") (mut i32) (i32.const 0))"#,
        "saturating float-to-int conversions" => {
            "(func (drop (i32.trunc_sat_f32_s (f32.const 1))))"
        }
        "sign extension" => "(func (drop (i32.extend8_s (i32.const 1))))",
        "multiple values" => "(func (result i32 i32) (i32.const 1) (i32.const 2))",
        "bulk memory" => "(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 1)))",
        "reference types (`funcref`)" => {
            "(table 1 funcref) (func (drop (table.get (i32.const 0))))"
        }
        "typed function references" => {
            "(type $t (func)) (func $f) (elem declare func $f) (func (call_ref $t (ref.func $f)))"
        }
        "SIMD" => "(func (drop (v128.const i32x4 0 0 0 0)))",
        "relaxed SIMD" => {
            "(func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))"
        }
        "tail calls" => "(func $f return_call $f)",
        "extended constant expressions" => "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
        "exceptions" => "(tag $e) (func (throw $e))",
        // Made a try in `load`, which text has no word for any more.
        "legacy exceptions" => "(func block end)",
        "threads" => "(func (drop (i32.atomic.load (i32.const 0))))",
        "garbage collection (also `externref`)" => "(func (param externref))",
        "memory64" => "(memory i64 1)",
        "multiple memories" => "(memory 1) (memory 1)",
        "custom page sizes" => "(memory 1 (pagesize 1))",
        "wide arithmetic" => {
            "(func (param i64) (result i64 i64) (i64.mul_wide_s (local.get 0) (local.get 0)))"
        }
        "stack switching" => "(type $f (func)) (type $c (cont $f)) (func (param (ref $c)))",
        "shared-everything threads" => "(global (shared i32) (i32.const 0))",
        "memory control" => "(func (memory.discard (i32.const 0) (i32.const 0)))",
        other => panic!("no sample of {other}"),
    }
}

fn load(text: &str, legacy: bool) -> Result<(), String> {
    let memory = if text.contains("(memory ") { "" } else { r#"(memory (export "memory") 1)"# };
    let text = format!(r#"(module {memory} {text} (func (export "proxy_abi_version_0_2_1")))"#);
    let mut bytes = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    if legacy {
        let block = bytes.windows(4).position(|code| code == [0x02, 0x40, 0x0b, 0x0b]);
        bytes[block.expect("a block")] = 0x06;
    }
    let loaded = Filter::load(&sim_host(), &bytes, Options::new("filter"));
    let loaded = loaded.map(|_| ()).map_err(|error| error.to_string());
    // The other ways to compile a module, as far as they tell.
    let cached = Cache::default().load(&bytes, Sources::default());
    let kept = BASELINES[0].keep(&bytes, &Nothing);
    if let Err(error) = &loaded {
        assert_eq!(cached.map(|_| ()).expect_err(error).to_string(), *error);
        match kept {
            Err(KeepError::Module(kept)) => assert_eq!(kept.to_string(), *error),
            other => panic!("{error}: {other:?}"),
        }
    } else {
        assert!(cached.is_ok() && matches!(kept, Ok(Kept::Compiled)), "{text}");
    }
    loaded
}

/// A store that keeps nothing.
struct Nothing;

// SAFETY: nothing of it is run.
unsafe impl CodeStore for Nothing {
    fn read(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn write(&self, _: &str, _: [&[u8]; 2]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn what_is_on_loads_and_what_is_off_is_named() {
    for proposal in PROPOSALS {
        let loaded = load(sample(proposal.name), proposal.name == "legacy exceptions");
        match &proposal.off {
            None => assert_eq!(loaded, Ok(()), "{}", proposal.name),
            Some(_) => {
                let error = loaded.expect_err(proposal.name);
                assert!(error.contains(&proposal.name.replace('`', "")), "{error}");
                assert!(
                    error.starts_with("not a valid WebAssembly module for this host: it uses "),
                    "{error}"
                );
                assert!(error.contains("; build the filter "), "{error}");
            }
        }
    }
}

#[test]
fn all_that_a_module_uses_is_named() {
    let error = load("(tag $e) (func (throw $e) (drop (i32.atomic.load (i32.const 0))))", false);
    let error = error.expect_err("exceptions and threads");
    assert!(
        error.starts_with(
            "not a valid WebAssembly module for this host: it uses exceptions and threads (off here: "
        ),
        "{error}"
    );
}

#[test]
fn a_module_that_is_valid_nowhere_is_not_taken_for_one() {
    let bytes = b"\0asm\x01\0\0\0\x01\x04\x01\x99\0\0";
    let error = Filter::load(&sim_host(), bytes, Options::new("filter")).map(|_| ());
    let error = error.expect_err("an error").to_string();
    assert!(error.starts_with("not a valid WebAssembly module: "), "{error}");
}
