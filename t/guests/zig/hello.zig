//! A filter in Zig without a standard library: adds response header `hello` with the configuration's text or `world!`.

const plugin_configuration = 7;
const response_headers = 2;

extern "env" fn proxy_get_buffer_bytes(kind: u32, start: u32, max: u32, bytes: *[*]u8, size: *u32) u32;
extern "env" fn proxy_add_header_map_value(
    kind: u32,
    key: [*]const u8,
    key_size: u32,
    value: [*]const u8,
    value_size: u32,
) u32;

/// The one place for what the host hands over; this filter asks for nothing but its configuration, once.
var memory: [4096]u8 = undefined;

/// Only the root that was configured last counts: this is a filter for one plugin context.
var value: []const u8 = "world!";

export fn proxy_abi_version_0_2_1() void {}

export fn _initialize() void {
    value = "world!";
}

export fn proxy_on_memory_allocate(size: u32) ?[*]u8 {
    return if (size > memory.len) null else &memory;
}

export fn proxy_on_configure(_: u32, size: u32) u32 {
    var bytes: [*]u8 = undefined;
    var length: u32 = 0;
    if (proxy_get_buffer_bytes(plugin_configuration, 0, size, &bytes, &length) != 0) return 0;
    value = if (length > 0) bytes[0..length] else "world!";
    return 1;
}

export fn proxy_on_response_headers(_: u32, _: u32, _: u32) u32 {
    const key = "hello";
    const status = proxy_add_header_map_value(response_headers, key, key.len, value.ptr, value.len);
    if (status != 0) @trap();
    return 0;
}
