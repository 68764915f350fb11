//! Compiled modules, each compiled once for all tests.

use super::World;
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::ports::Host;
use resty_proxy_wasm::vm::{Code, Module, Options};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

type Cell = Arc<OnceLock<Result<Arc<Code>, Error>>>;

/// A plugin's module of these bytes.
pub fn module(world: &Arc<World>, bytes: &[u8], options: Options) -> Result<Module, Error> {
    let host: Arc<dyn Host> = world.clone();
    let cell = cell(bytes);
    let code = cell.get_or_init(|| Code::compile(bytes).map(Arc::new)).clone()?;
    Module::new(code, options, &host)
}

/// Tests that want other modules do not wait for the one that compiles.
fn cell(bytes: &[u8]) -> Cell {
    static CELLS: Mutex<Option<HashMap<Vec<u8>, Cell>>> = Mutex::new(None);
    let mut cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    cells.get_or_insert_default().entry(bytes.to_vec()).or_default().clone()
}
