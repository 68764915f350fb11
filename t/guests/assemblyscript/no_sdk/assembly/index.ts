// A filter that declares the host functions that it needs itself: no WASI, few exports, a garbage collector inside.
// It answers each response with `x-path-length: N`, the length of the request's path, and adds the configuration's
// text as `hello`.

@external("env", "proxy_log")
declare function proxy_log(level: i32, text: usize, size: i32): i32;
@external("env", "proxy_get_buffer_bytes")
declare function proxy_get_buffer_bytes(type: i32, start: i32, max: i32, bytes: usize, size: usize): i32;
@external("env", "proxy_get_header_map_value")
declare function proxy_get_header_map_value(
  map: i32, key: usize, key_size: i32, value: usize, value_size: usize): i32;
@external("env", "proxy_add_header_map_value")
declare function proxy_add_header_map_value(
  map: i32, key: usize, key_size: i32, value: usize, value_size: i32): i32;

const LOG_ERROR = 4;
const PLUGIN_CONFIGURATION = 7;
const REQUEST_HEADERS = 0;
const RESPONSE_HEADERS = 2;

// The host writes the address and the size of what it hands over here.
const returned = memory.data(8);

// Keeps what the host was given alive until it has been read.
let allocated: ArrayBuffer = new ArrayBuffer(0);

// One context of each plugin configuration.
const values = new Map<i32, string>();
const roots = new Map<i32, i32>();

export function proxy_abi_version_0_2_1(): void {}

export function proxy_on_memory_allocate(size: i32): usize {
  allocated = new ArrayBuffer(size);
  return changetype<usize>(allocated);
}

export function abort_(message: string | null, file: string | null, line: u32, column: u32): void {
  if (message !== null) {
    const text = String.UTF8.encode(message);
    proxy_log(LOG_ERROR, changetype<usize>(text), text.byteLength);
  }
  unreachable();
}

function returned_text(): string {
  const size = load<u32>(returned, 4);
  return size == 0 ? "" : String.UTF8.decodeUnsafe(load<u32>(returned), size);
}

function add_response_header(key: string, value: string): void {
  const key_bytes = String.UTF8.encode(key);
  const value_bytes = String.UTF8.encode(value);
  const status = proxy_add_header_map_value(
    RESPONSE_HEADERS, changetype<usize>(key_bytes), key_bytes.byteLength,
    changetype<usize>(value_bytes), value_bytes.byteLength);
  assert(status == 0, "proxy_add_header_map_value");
}

export function proxy_on_context_create(context: i32, root: i32): void {
  if (root != 0) roots.set(context, root);
}

export function proxy_on_configure(root: i32, size: i32): i32 {
  const status = proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, returned, returned + 4);
  assert(status == 0, "proxy_get_buffer_bytes");
  values.set(root, returned_text());
  return 1;
}

export function proxy_on_response_headers(context: i32, num_headers: i32, end_of_stream: i32): i32 {
  const key = String.UTF8.encode(":path");
  const status = proxy_get_header_map_value(
    REQUEST_HEADERS, changetype<usize>(key), key.byteLength, returned, returned + 4);
  assert(status == 0, "proxy_get_header_map_value");
  add_response_header("x-path-length", returned_text().length.toString());

  const value = values.get(roots.get(context));
  if (value.length > 0) add_response_header("hello", value);
  return 0;
}

export function proxy_on_delete(context: i32): void {
  if (roots.has(context)) {
    roots.delete(context);
  } else {
    values.delete(context);
  }
}
