//! Imports: the host functions, and stand-ins for what a module asks for besides.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use wasmtime::{ExternType, FuncType, ImportType, Linker, Store, Val, ValType};

use super::engine::{EngineKind, PerEngine};
use crate::abi::Status;
use crate::error::{Error, one_line, printable, shown};
use crate::guest::State;
use crate::hostcall::link::link_any;
use crate::store::Count;
use crate::vm::Code;
use crate::vm::exports::signature;
use crate::{hostcall, limits, wasi};

/// WASI's ENOSYS.
const ENOSYS: i32 = 52;

/// A linker for one module: every import has a function of its own type. The texts name what was stood in
/// for, once each.
pub(crate) fn for_module(
    code: &Code,
    store: &mut Store<State>,
) -> Result<(Linker<State>, Vec<String>), Error> {
    let base = if code.profile.extended { base_of_extended } else { base };
    let mut linker = base(code.engine)?.clone();
    linker.allow_shadowing(true);
    let mut warnings = Vec::new();
    for import in code.module.imports() {
        let ExternType::Func(wanted) = import.ty() else {
            return Err(Error::Import(format!(
                "the module imports {} \"{}.{}\"; a host gives functions only (link the filter without imported memory and tables)",
                kind(&import.ty()),
                shown(import.module()),
                shown(import.name())
            )));
        };
        let known = linker.get_by_import(&mut *store, &import).map(|known| known.ty(&*store));
        let known = known.as_ref().and_then(ExternType::func).map(signature);
        if known.as_ref() != Some(&signature(&wanted)) {
            stand_in(&mut linker, &import, wanted, known, &mut warnings)?;
            // Those without a warning are counted once they are called.
            if warnings.len() <= limits::LOAD_WARNINGS {
                let state = store.data();
                state.host.count_stand_in(&state.plugin.name, &name_of(&import), 0);
            }
        }
    }
    if warnings.len() > limits::LOAD_WARNINGS {
        let more = warnings.len() - limits::LOAD_WARNINGS;
        warnings.truncate(limits::LOAD_WARNINGS);
        warnings.push(format!("{more} more imports are not functions of this host"));
    }
    Ok((linker, warnings))
}

/// Every function that this host has for guests, by module and name.
pub(crate) fn functions(
    store: &mut Store<State>,
) -> Result<Vec<(String, String, FuncType)>, Error> {
    let all: Vec<_> = base(EngineKind::Plain)?.iter(&mut *store).collect();
    let functions = all.into_iter().filter_map(|(module, name, item)| {
        Some((module.into(), name.into(), item.into_func()?.ty(&*store)))
    });
    Ok(functions.collect())
}

fn base(engine: EngineKind) -> Result<&'static Linker<State>, Error> {
    static BASES: PerEngine<Linker<State>> = PerEngine::new();
    BASES.get_or_try_init(engine, || {
        let mut linker = Linker::new(engine.engine()?);
        hostcall::add_to_linker(&mut linker)
            .and_then(|()| wasi::add_to_linker(&mut linker))
            .map_err(|e| Error::Import(one_line(&e)))?;
        Ok(linker)
    })
}

/// The same for a module that the host has added to. No guest reaches the beginnings by an import of its own: such a one is
/// not extended.
fn base_of_extended(engine: EngineKind) -> Result<&'static Linker<State>, Error> {
    static BASES: PerEngine<Linker<State>> = PerEngine::new();
    BASES.get_or_try_init(engine, || {
        let mut linker = base(engine)?.clone();
        hostcall::add_beginnings_to_linker(&mut linker).map_err(|e| Error::Import(one_line(&e)))?;
        Ok(linker)
    })
}

fn name_of(import: &ImportType<'_>) -> String {
    format!("{}.{}", shown(import.module()), shown(import.name()))
}

fn stand_in(
    linker: &mut Linker<State>,
    import: &ImportType<'_>,
    ty: FuncType,
    known: Option<String>,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let (module, name) = (import.module(), import.name());
    let function = name_of(import);
    let text = function.clone() + &printable(&signature(&ty));
    let odd = match known {
        Some(known) => format!("import {text} has another type than this host's {known}"),
        None => format!("import {text} is not a function of this host"),
    };
    let answer = if wasi::MODULES.contains(&module) {
        Some(ENOSYS)
    } else if module == "env" && name.starts_with("proxy_") {
        Some(Status::Unimplemented as i32)
    } else if module == "env" {
        None
    } else {
        return Err(Error::Import(format!(
            "the module imports function \"{}.{}\", which is neither Proxy-Wasm (module \"env\") nor WASI",
            shown(module),
            shown(name)
        )));
    };
    let results: Vec<ValType> = ty.results().collect();
    let added = match answer {
        Some(status) => {
            warnings.push(format!("{odd}: calls answer {status}"));
            let called = Called::new(format!(
                "{text} was called, which this host does not have: it did nothing, what the filter handed over is lost, and \
                 the call answered {status}"
            ));
            link_any(linker, (module, name), ty, move |state, out| {
                count(state, &function);
                called.tell(state);
                for (slot, ty) in out.iter_mut().zip(&results) {
                    *slot = answer_of(ty, status);
                }
                Ok(())
            })
        }
        None => {
            warnings.push(format!("{odd}: a call of it traps"));
            link_any(linker, (module, name), ty, move |state, _| {
                count(state, &function);
                Err(wasmtime::Error::msg(format!(
                    "{text} was called, which this host does not have"
                )))
            })
        }
    };
    added.map_err(|e| Error::Import(one_line(&e)))
}

fn count(state: &State, function: &str) {
    state.own.count(Count::StandIns);
    state.host.count_stand_in(&state.plugin.name, function, 1);
}

/// The warning when a stand-in is called, once in each process: what a filter wanted of it does not happen, and it may not
/// look at the answer.
struct Called {
    text: String,
    /// The process that was told.
    told: AtomicU64,
}

impl Called {
    fn new(text: String) -> Self {
        Self { text, told: AtomicU64::new(0) }
    }

    fn tell(&self, state: &State) {
        let now = state.host.process();
        if self.told.swap(now, Relaxed) != now {
            state.warn(&self.text);
        }
    }
}

fn answer_of(ty: &ValType, status: i32) -> Val {
    match ty {
        ValType::I32 => Val::I32(status),
        ValType::I64 => Val::I64(status.into()),
        ValType::F32 => Val::F32(0),
        ValType::F64 => Val::F64(0),
        ValType::V128 => Val::V128(0.into()),
        ValType::Ref(r) => Val::null_ref(r.heap_type()),
    }
}

fn kind(ty: &ExternType) -> &'static str {
    match ty {
        ExternType::Func(_) => "function",
        ExternType::Global(_) => "global",
        ExternType::Table(_) => "table",
        ExternType::Memory(_) => "memory",
        ExternType::Tag(_) => "tag",
    }
}
