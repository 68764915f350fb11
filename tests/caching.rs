//! The cache of compiled modules, over a store that lives in memory.

use crate::alone::alone;
use crate::world::{Filter, guest, sim_host};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::ports::Host;
use resty_proxy_wasm::vm::{
    Cache, Code, CodeStore, Loaded, Module, Options, Origin, Plugin, Progress, Sources, Stage,
    StoreError,
};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Shelf {
    entries: Mutex<BTreeMap<String, Vec<u8>>>,
    /// What each read and write answers instead.
    broken: Option<StoreError>,
    full: bool,
}

impl Shelf {
    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.entries.lock().expect("entries")
    }

    /// The one entry.
    fn entry(&self) -> (String, Vec<u8>) {
        let entries = self.entries();
        assert_eq!(entries.len(), 1);
        entries.first_key_value().map(|(k, v)| (k.clone(), v.clone())).expect("an entry")
    }

    fn set(&self, content: &[u8]) {
        let (name, _) = self.entry();
        self.entries().insert(name, content.into());
    }
}

// SAFETY: a test puts nothing here that is run but what was written, or what the digest refuses.
unsafe impl CodeStore for Shelf {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.broken {
            Some(error @ (StoreError::Unusable(_) | StoreError::Entry(_))) => Err(error.clone()),
            Some(StoreError::ReadOnly(_)) | None => Ok(self.entries().get(name).cloned()),
        }
    }

    fn write(&self, name: &str, parts: [&[u8]; 2]) -> Result<(), StoreError> {
        if self.full {
            return Err(StoreError::Unusable("is full".into()));
        }
        if let Some(error @ StoreError::ReadOnly(_)) = &self.broken {
            return Err(error.clone());
        }
        assert!(!matches!(self.broken, Some(StoreError::Unusable(_))), "written to all the same");
        self.entries().insert(name.into(), parts.concat());
        Ok(())
    }
}

fn stored(shelf: &Shelf) -> Sources<'_> {
    Sources { store: Some(shelf), ..Sources::default() }
}

fn load(shelf: &Shelf, bytes: &[u8]) -> Loaded {
    // As another process: nothing is in memory.
    Cache::default().load(bytes, stored(shelf)).expect("code")
}

/// The filter of this code adds its header.
fn works(loaded: &Loaded) {
    let world = sim_host();
    let host: Arc<dyn Host> = world.clone();
    let module = Module::new(loaded.code.clone(), Options::new("filter"), &host).expect("a module");
    let filter = Filter::of(&world, Plugin::new(module, host).expect("a plugin"));
    assert_eq!(filter.open(&filter.context("")).whole(), ["add response hello: world!"]);
}

#[test]
fn what_a_plugin_uses_is_found_in_memory() {
    let (cache, bare, other) = (Cache::default(), guest("bare.wat"), guest("marker_none.wat"));
    let load = |bytes: &[u8]| cache.load(bytes, Sources::default()).expect("code");
    let first = load(&bare);
    assert_eq!(first.origin, Origin::Compiled);
    let second = load(&bare);
    assert_eq!(second.origin, Origin::Memory);
    assert!(Arc::ptr_eq(&first.code, &second.code));
    assert_eq!(load(&other).origin, Origin::Compiled);
    drop(first);
    works(&second);
    assert_eq!(load(&bare).origin, Origin::Memory);
    drop(second);
    assert_eq!(load(&bare).origin, Origin::Compiled);
    assert!(cache.load(b"", Sources::default()).is_err());
}

/// A module with that many functions.
fn functions(count: usize) -> Vec<u8> {
    let functions =
        "(func (param i32) (result i32) (i32.mul (local.get 0) (local.get 0)))".repeat(count);
    let text = format!("(module (memory (export \"memory\") 1) {functions})");
    wat::parse_str(text).expect("WebAssembly text")
}

#[test]
fn compiled_functions_are_counted() {
    let bytes = functions(321);
    for threads in [1, 3] {
        let progress = Arc::new(Progress::default());
        let threads = NonZeroUsize::new(threads);
        let sources = || Sources { threads, progress: Some(&progress), ..Sources::default() };
        let cache = Cache::default();
        assert_eq!(progress.get(), (Stage::Queued as u32, 0, 0));
        let loaded = cache.load(&bytes, sources()).expect("code");
        assert_eq!(progress.get(), (Stage::Finishing as u32, 321, 321));
        // A load that compiles nothing says nothing of functions.
        let progress = Arc::new(Progress::default());
        let sources = Sources { progress: Some(&progress), ..Sources::default() };
        assert_eq!(cache.load(&bytes, sources).expect("code").origin, Origin::Memory);
        assert_eq!(progress.get(), (Stage::Waiting as u32, 0, 0));
        drop(loaded);
    }
}

#[test]
fn a_compile_that_takes_too_much_memory_is_ended() {
    alone("caching::a_compile_that_takes_too_much_memory_is_ended", || {
        let (cache, bytes) = (Cache::default(), functions(2000));
        let load = |memory| cache.load(&bytes, Sources { memory, ..Sources::default() });
        let ended = load(Some(0)).err().map(|error| error.to_string());
        assert_eq!(
            ended.as_deref(),
            Some(
                "compiling the module takes more memory than the option compile_memory allows, 0 bytes"
            )
        );
        // What it had begun is gone, and nothing of it is in the way.
        assert_eq!(load(Some(1 << 30)).expect("code").origin, Origin::Compiled);
    });
}

#[test]
fn a_plugin_keeps_its_code_in_memory() {
    let (cache, bytes, world) = (Cache::default(), guest("bare.wat"), sim_host());
    let host: Arc<dyn Host> = world.clone();
    let code = cache.load(&bytes, Sources::default()).expect("code").code;
    let module = Module::new(code, Options::new("filter"), &host).expect("a module");
    let plugin = Plugin::new(module, host).expect("a plugin");
    assert_eq!(cache.load(&bytes, Sources::default()).expect("code").origin, Origin::Memory);
    drop(plugin);
    assert_eq!(cache.load(&bytes, Sources::default()).expect("code").origin, Origin::Compiled);
}

#[test]
fn what_was_kept_is_taken() {
    let shelf = Shelf::default();
    for (bytes, entries) in [(guest("bare.wat"), 1), (guest("initialize_main.wat"), 2)] {
        let cold = load(&shelf, &bytes);
        assert_eq!((cold.origin, shelf.entries().len()), (Origin::Compiled, entries));
        let warm = load(&shelf, &bytes);
        assert_eq!((warm.origin, shelf.entries().len()), (Origin::Store, entries));
        assert_eq!((warm.bad_entry.as_deref(), warm.unusable.as_deref()), (None, None));
        works(&cold);
        works(&warm);
    }
    // Where memory has it the store is not asked.
    let (cache, bytes) = (Cache::default(), guest("bare.wat"));
    let from = || cache.load(&bytes, stored(&shelf)).expect("code");
    let kept = from();
    assert_eq!((kept.origin, from().origin), (Origin::Store, Origin::Memory));
}

#[test]
fn an_entry_that_is_not_as_it_was_written_is_replaced() {
    let (shelf, bytes) = (Shelf::default(), guest("bare.wat"));
    load(&shelf, &bytes);
    let (name, good) = shelf.entry();
    let changed = |at: usize| {
        let mut entry = good.clone();
        entry[at] ^= 1;
        entry
    };
    let cut_off = &good[..good.len() / 2];
    for (entry, cause) in [
        (Vec::new(), "is cut off"),
        (cut_off.to_vec(), "is cut off"),
        ([&good[..], b"more"].concat(), "is longer than it says"),
        (changed(0), "is no entry of this cache"),
        (changed(8), "is damaged: its digest is another"),
        (changed(good.len() - 1), "is damaged: its digest is another"),
    ] {
        shelf.set(&entry);
        let loaded = load(&shelf, &bytes);
        assert_eq!(loaded.bad_entry, Some(format!("{name} {cause}")));
        assert_eq!((loaded.origin, loaded.unusable.as_deref()), (Origin::Compiled, None));
        works(&loaded);
        let again = load(&shelf, &bytes);
        assert_eq!((again.origin, again.bad_entry.as_deref()), (Origin::Store, None));
    }

    // A sound entry, but of another module.
    load(&shelf, &guest("marker_none.wat"));
    let other = shelf.entries().iter().find(|(key, _)| **key != name).map(|(_, v)| v.clone());
    shelf.entries().insert(name.clone(), other.expect("another entry"));
    let loaded = load(&shelf, &bytes);
    assert_eq!(loaded.bad_entry, Some(format!("{name} is damaged: its digest is another")));
}

#[test]
fn a_store_that_fails_keeps_no_module_from_loading() {
    let bytes = guest("bare.wat");
    let unusable = StoreError::Unusable("is closed".into());
    let closed = load(&Shelf { broken: Some(unusable), ..Shelf::default() }, &bytes);
    assert_eq!(
        (closed.unusable.as_deref(), closed.bad_entry.as_deref()),
        (Some("is closed"), None)
    );
    works(&closed);

    let full = load(&Shelf { full: true, ..Shelf::default() }, &bytes);
    assert_eq!((full.unusable.as_deref(), full.origin), (Some("is full"), Origin::Compiled));
    works(&full);

    let only_read = StoreError::ReadOnly("is another's".into());
    let kept_out = load(&Shelf { broken: Some(only_read), ..Shelf::default() }, &bytes);
    let said = [kept_out.unusable, kept_out.bad_entry, kept_out.not_kept];
    assert_eq!(said, [None, None, Some("is another's".into())]);
    assert_eq!(kept_out.origin, Origin::Compiled);

    let shelf = Shelf { broken: Some(StoreError::Entry("x is odd".into())), ..Shelf::default() };
    let odd = load(&shelf, &bytes);
    assert_eq!((odd.unusable.as_deref(), odd.bad_entry.as_deref()), (None, Some("x is odd")));
    assert_eq!(shelf.entries().len(), 1);
}

#[test]
fn calls_of_small_modules_are_inlined() {
    let trace = |padding: usize, inlines: bool| {
        let text = format!(
            r#"(module $m (memory (export "memory") 2)
            (global $n (mut i32) (i32.const 0))
            (data (i32.const 0) "{}")
            (func $inner (if (global.get $n) (then unreachable)) (global.set $n (i32.const 1)))
            (func $outer (call $inner))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $outer) (call $outer) (i32.const 0)))"#,
            "x".repeat(padding)
        );
        let bytes = wat::parse_str(text).expect("WebAssembly text");
        let shelf = Shelf::default();
        let code = if inlines {
            load(&shelf, &bytes).code
        } else {
            Code::compile(&bytes).expect("code").into()
        };
        if inlines {
            assert_eq!(load(&shelf, &bytes).origin, Origin::Store);
        }
        let world = sim_host();
        let host: Arc<dyn Host> = world.clone();
        let module = Module::new(code, Options::new("filter"), &host).expect("a module");
        let filter = Filter::of_module(&world, module).expect("a filter");
        let stream = filter.open(&filter.context(""));
        stream.run(Callback::RequestHeaders, b"", false).expect_err("a trap").to_string()
    };
    let all = "(in m!inner < m!outer < m!<wasm function 2>)";
    let small = trace(0, true);
    assert!(
        small.ends_with("unreachable` instruction executed (in m!<wasm function 2>)"),
        "{small}"
    );
    for text in [trace(64 * 1024, true), trace(0, false)] {
        assert!(text.ends_with(all), "{text}");
    }
}
