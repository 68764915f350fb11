// Generated from src/ffi by ./build.sh generate: do not edit.

/// The number of this C ABI, made from all of its declarations and constants. The Lua module refuses a library of another
/// number.
pub const RPW_ABI: i32 = 1860627172;
