//! Bytes as a module: it loads or not, starts or not, and one stream goes through it or not; each time with a reason.

use crate::world::{Filter, Request, SimHost, Stream, sim_host};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::ports::Host;
use resty_proxy_wasm::vm::{Code, Module, Options};
use std::sync::Arc;
use wasmparser::{BinaryReaderError, FunctionBody, Operator, Parser, Payload};

/// Larger modules are only slower.
const LARGEST: usize = 4 * 1024;

pub(super) fn run(bytes: &[u8]) {
    if bytes.len() > LARGEST {
        return;
    }
    let world = sim_host();
    if let Err(error) = load(&world, bytes) {
        says_why(&error.to_string());
    }
    world.warned();
}

/// One line, whatever names the module has.
fn says_why(text: &str) {
    assert!(!text.trim().is_empty() && !text.contains(char::is_control), "{text:?}");
}

fn load(world: &Arc<SimHost>, bytes: &[u8]) -> Result<(), Error> {
    let mut options = Options::new("filter");
    options.memory_limit = 4 * 1024 * 1024;
    options.env = vec![("A".into(), "b".into())];
    options.vm_config = b"vm".to_vec();
    let host: Arc<dyn Host> = world.clone();
    let module = Module::new(Arc::new(Code::compile(bytes)?), options, &host)?;
    if !is_finite(bytes).unwrap_or(false) {
        return Ok(());
    }
    module.warnings().iter().for_each(|text| says_why(text));
    let filter = Filter::of_module(world, module)?;
    let context = filter.configure("configuration")?;
    let stream = filter.try_open(&context, world.add(Request::default()))?;
    let result = callbacks(&stream);
    // Whatever became of the VM, what lives in it can be ended.
    let ended = stream.end().and(filter.drop_context(&context));
    // And the next request finds a VM, or learns why there is none.
    filter.try_open(&context, world.add(Request::default()))?.end()?;
    result.and(ended)
}

fn callbacks(stream: &Stream) -> Result<(), Error> {
    stream.run(Callback::RequestHeaders, b"", false)?;
    stream.run(Callback::RequestBody, b"one", false)?;
    stream.run(Callback::RequestBody, b"two", true)?;
    stream.resumed()?;
    stream.try_response_headers(&[("content-length", "5")])?;
    stream.run(Callback::ResponseBody, b"three", false)?;
    stream.run(Callback::ResponseBody, b"", true)?;
    Ok(())
}

/// True for a module that cannot run for long: without loops and calls, or with fuel as wasm-smith's
/// `Module::ensure_termination` doles it out. (Time limits have tests of their own; here each would cost its time.)
fn is_finite(bytes: &[u8]) -> Result<bool, BinaryReaderError> {
    let mut fuel = None;
    let mut has_code = false;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            // The fuel is the last global.
            Payload::GlobalSection(section) => {
                for (at, global) in section.into_iter().enumerate() {
                    let mut init = global?.init_expr.get_operators_reader();
                    fuel = match init.read()? {
                        Operator::I32Const { value: 0..=FUEL } => Some(at as u32),
                        _ => None,
                    };
                }
            }
            Payload::CodeSectionEntry(body) => {
                has_code = true;
                if !is_bounded(&body, fuel)? {
                    return Ok(false);
                }
            }
            _ => {}
        }
    }
    Ok(has_code)
}

/// The most fuel that counts as little.
const FUEL: i32 = 1000;

/// Every loop and every way into the function takes fuel, and nothing fills it up; or it has neither loops nor calls.
fn is_bounded(body: &FunctionBody<'_>, fuel: Option<u32>) -> Result<bool, BinaryReaderError> {
    let operators: Vec<Operator<'_>> =
        body.get_operators_reader()?.into_iter().collect::<Result<_, _>>()?;
    let takes_fuel = |at: usize| {
        let rest = operators.get(at..).unwrap_or_default();
        matches!(rest, [
            Operator::GlobalGet { global_index: a },
            Operator::I32Eqz,
            Operator::If { .. },
            Operator::Unreachable,
            Operator::End,
            Operator::GlobalGet { global_index: b },
            Operator::I32Const { value: 1 },
            Operator::I32Sub,
            Operator::GlobalSet { global_index: c },
            ..
        ] if a == b && b == c && Some(*a) == fuel)
    };
    let repeats = |operator: &Operator<'_>| {
        matches!(
            operator,
            Operator::Loop { .. }
                | Operator::Call { .. }
                | Operator::CallIndirect { .. }
                | Operator::CallRef { .. }
                | Operator::ReturnCall { .. }
                | Operator::ReturnCallIndirect { .. }
                | Operator::ReturnCallRef { .. }
        )
    };
    let fills = |(at, operator): (usize, &Operator<'_>)| {
        matches!(operator, Operator::GlobalSet { global_index } if Some(*global_index) == fuel)
            && !matches!(
                operators[..at],
                [.., Operator::LocalGet { .. } | Operator::I32Const { value: 1 }, Operator::I32Sub]
            )
    };
    if operators.iter().enumerate().any(fills) {
        return Ok(false);
    }
    let loops_take = operators
        .iter()
        .enumerate()
        .all(|(at, operator)| !matches!(operator, Operator::Loop { .. }) || takes_fuel(at + 1));
    Ok(!operators.iter().any(repeats) || (takes_fuel(0) && loops_take))
}
