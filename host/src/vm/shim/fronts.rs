//! WebAssembly in front of the host functions that hand over a value, for which the guest makes room.
//!
//! Each of its functions is no more than
//!
//! ```text
//! (func $host!proxy_get_property (param i32 i32 i32 i32) (result i32)
//!   answer, value = begin.proxy_get_property(a beginning, all parameters)
//!   if answer is a size:
//!     give(answer, where it is told where the value is, value)
//!   else:
//!     the status)
//! ```
//!
//! with the host's part from `hostcall`, and [`give`](super::give). The [folder](super) has the whole way.

use wasm_encoder::{BlockType, Function, ValType};
use wasmparser::FuncType;

use crate::abi::{HOST_FUNCTIONS, HostFunction};
use crate::hostcall::memory::{WANTS_ROOM, WORDS};
use crate::hostcall::{PAIRS, Step};

/// Parameters of a beginning: the step, and pairs of the parameters of its host function.
pub(super) const PARAMS: [ValType; 1 + PAIRS] = [ValType::I64; 1 + PAIRS];

/// Results of a beginning.
pub(super) const RESULTS: [ValType; 1 + WORDS] = [ValType::I64; 1 + WORDS];

/// The host function that hands over a value and has that name and type.
pub(super) fn host_function(name: &str, ty: &FuncType) -> Option<&'static HostFunction> {
    let i32 = |ty: &wasmparser::ValType| *ty == wasmparser::ValType::I32;
    functions().find(|function| {
        // All of these functions have numbers of 32 bits only, see [`PAIRS`].
        function.name == name
            && function.params.len() == ty.params().len()
            && ty.results().len() == 1
            && ty.params().iter().chain(ty.results()).all(i32)
    })
}

fn functions() -> impl Iterator<Item = &'static HostFunction> {
    HOST_FUNCTIONS.iter().filter(|function| function.hands_over())
}

/// The function in front of a host function. These are the numbers of its beginning, and of what gives.
pub(super) fn body(function: &HostFunction, begin: u32, give: u32) -> Function {
    let params = function.params.len() as u32;
    // More for what the beginning answers.
    let mut body = Function::new([(1 + WORDS as u32, ValType::I64)]);
    let answer = params;
    let mut code = body.instructions();
    code.i64_const(Step::Begin as i64);
    for low in (0..2 * PAIRS as u32).step_by(2) {
        let (has_low, has_high) = (low < params, low + 1 < params);
        match has_low {
            true => code.local_get(low).i64_extend_i32_u(),
            false => code.i64_const(0),
        };
        if has_high {
            code.local_get(low + 1).i64_extend_i32_u().i64_const(32).i64_shl().i64_or();
        }
    }
    code.call(begin);
    for result in (answer..=answer + WORDS as u32).rev() {
        code.local_set(result);
    }
    code.local_get(answer).i64_const(WANTS_ROOM).i64_and().i64_eqz();
    code.if_(BlockType::Result(ValType::I32)).local_get(answer).i32_wrap_i64().else_();
    let (data, size) = return_at(function);
    code.local_get(answer).local_get(data).local_get(size);
    for word in 1..=WORDS as u32 {
        code.local_get(answer + word);
    }
    code.call(give).end().end();
    body
}

/// Which parameters say where the guest is told where the value is, and its size.
fn return_at(function: &HostFunction) -> (u32, u32) {
    let place = |name: &str| function.params.iter().position(|(known, _)| *known == name);
    [place("return_data"), place("return_size")].map(|at| at.unwrap_or_default() as u32).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmparser::ValType::{I32, I64};

    #[test]
    fn it_has_the_functions_that_hand_over_values() {
        for function in functions() {
            assert!(function.params.len() <= 2 * PAIRS, "{}", function.name);
            assert!(function.params.iter().all(|(_, ty)| *ty == "u32"), "{}", function.name);
            assert!(return_at(function).0 < return_at(function).1, "{}", function.name);
        }
        let found = |name, params: &[_], results: &[_]| {
            let ty = FuncType::new(params.iter().copied(), results.iter().copied());
            host_function(name, &ty).is_some()
        };
        for (name, params) in [
            ("proxy_get_shared_data", 5),
            ("proxy_get_property", 4),
            ("proxy_get_header_map_value", 5),
        ] {
            assert!(found(name, &vec![I32; params], &[I32]), "{name}");
            assert!(!found(name, &vec![I32; params + 1], &[I32]), "{name}");
            assert!(!found(name, &vec![I32; params], &[]), "{name}");
            assert!(!found(name, &vec![I64; params], &[I32]), "{name}");
        }
        assert!(!found("proxy_set_shared_data", &[I32; 5], &[I32]));
    }
}
