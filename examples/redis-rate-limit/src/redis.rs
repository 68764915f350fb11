//! The Redis functions of ABI 0.2.100, which the SDK does not have.

use proxy_wasm::types::Status;

#[link(wasm_import_module = "env")]
extern "C" {
    fn proxy_redis_init(
        upstream: *const u8,
        upstream_size: usize,
        username: *const u8,
        username_size: usize,
        password: *const u8,
        password_size: usize,
        timeout_ms: u32,
    ) -> Status;
    fn proxy_redis_call(
        upstream: *const u8,
        upstream_size: usize,
        query: *const u8,
        query_size: usize,
        return_token: *mut u32,
    ) -> Status;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max_size: usize,
        return_data: *mut *mut u8,
        return_size: *mut usize,
    ) -> Status;
    fn proxy_set_effective_context(id: u32) -> Status;
}

const REDIS_ANSWER: u32 = 9;

/// Says as whom calls ask a server, and for how long.
pub fn init(upstream: &str, username: &str, password: &str, timeout_ms: u32) -> Status {
    // SAFETY: the host reads the strings during the call.
    unsafe {
        proxy_redis_init(
            upstream.as_ptr(),
            upstream.len(),
            username.as_ptr(),
            username.len(),
            password.as_ptr(),
            password.len(),
            timeout_ms,
        )
    }
}

/// Asks a server. Returns the token by which `proxy_on_redis_call_response` knows the call.
pub fn call(upstream: &str, command: &[&str]) -> Result<u32, Status> {
    let mut query = format!("*{}\r\n", command.len());
    for part in command {
        query += &format!("${}\r\n{part}\r\n", part.len());
    }
    let mut token = 0;
    // SAFETY: the host reads the strings during the call, and writes one number.
    let status = unsafe {
        proxy_redis_call(
            upstream.as_ptr(),
            upstream.len(),
            query.as_ptr(),
            query.len(),
            &mut token,
        )
    };
    if status == Status::Ok {
        Ok(token)
    } else {
        Err(status)
    }
}

/// The answer of the call whose callback runs.
pub fn answer(size: usize) -> Option<Vec<u8>> {
    let (mut data, mut length) = (std::ptr::null_mut(), 0);
    // SAFETY: the host writes an address and a size.
    let status =
        unsafe { proxy_get_buffer_bytes(REDIS_ANSWER, 0, size, &mut data, &mut length) };
    if status != Status::Ok || data.is_null() {
        return None;
    }
    // SAFETY: the host has put the bytes into memory that it had this filter's allocator make for them.
    Some(unsafe { Vec::from_raw_parts(data, length, length) })
}

/// Has the functions that follow work on another context.
pub fn set_effective_context(id: u32) {
    // SAFETY: takes a number.
    unsafe { proxy_set_effective_context(id) };
}
