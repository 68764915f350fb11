//! Compiled modules, each compiled once in a process.

use super::SimHost;
use crate::error::Error;
use crate::ports::Host;
use crate::vm::{Code, Module, Options};
use parking_lot::{Mutex, const_mutex};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

type Cell = Arc<OnceLock<Result<Arc<Code>, Error>>>;

/// A plugin's module of these bytes, which are compiled once and kept for the life of the process.
pub fn module(host: &Arc<SimHost>, bytes: &[u8], options: Options) -> Result<Module, Error> {
    let host: Arc<dyn Host> = host.clone();
    let cell = cell(bytes);
    let code = cell.get_or_init(|| Code::compile(bytes).map(Arc::new)).clone()?;
    Module::new(code, options, &host)
}

/// Threads that want other modules do not wait for the one that compiles.
fn cell(bytes: &[u8]) -> Cell {
    static CELLS: Mutex<Option<HashMap<Vec<u8>, Cell>>> = const_mutex(None);
    let mut cells = CELLS.lock();
    cells.get_or_insert_default().entry(bytes.to_vec()).or_default().clone()
}
