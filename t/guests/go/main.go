// A filter in plain Go, without an SDK: adds response header `hello` with the configuration's text or `world!`, and
// says in the log how often its VM was asked. Its runtime imports more of WASI than other languages do.
package main

import (
	"strconv"
	"unsafe"
)

const (
	logInfo             = 2
	pluginConfiguration = 7
	responseHeaders     = 2
)

//go:wasmimport env proxy_log
func proxyLog(level uint32, text unsafe.Pointer, size uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(kind, start, max uint32, bytes, size unsafe.Pointer) uint32

//go:wasmimport env proxy_add_header_map_value
func proxyAddHeaderMapValue(kind uint32, key unsafe.Pointer, keySize uint32, value unsafe.Pointer, valueSize uint32) uint32

// State made before the first callback; `main` is never run.
var (
	values    map[uint32]string
	roots     map[uint32]uint32
	allocated []byte
	responses int
)

func init() {
	values = map[uint32]string{}
	roots = map[uint32]uint32{}
}

func main() {}

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

// The buffer is kept from the garbage collector until the next one is asked for.
//
//go:wasmexport proxy_on_memory_allocate
func onMemoryAllocate(size uint32) unsafe.Pointer {
	allocated = make([]byte, size)
	return unsafe.Pointer(unsafe.SliceData(allocated))
}

//go:wasmexport proxy_on_context_create
func onContextCreate(context, root uint32) {
	if root != 0 {
		roots[context] = root
	}
}

//go:wasmexport proxy_on_configure
func onConfigure(root, size uint32) uint32 {
	var bytes, length uint32
	if proxyGetBufferBytes(pluginConfiguration, 0, size, unsafe.Pointer(&bytes), unsafe.Pointer(&length)) != 0 {
		return 0
	}
	values[root] = "world!"
	if length > 0 {
		values[root] = string(allocated[:length])
	}
	return 1
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(context, headers, endOfStream uint32) uint32 {
	responses++
	info("go response " + strconv.Itoa(responses))
	key, value := "hello", values[roots[context]]
	status := proxyAddHeaderMapValue(responseHeaders,
		unsafe.Pointer(unsafe.StringData(key)), uint32(len(key)),
		unsafe.Pointer(unsafe.StringData(value)), uint32(len(value)))
	if status != 0 {
		panic("proxy_add_header_map_value: " + strconv.Itoa(int(status)))
	}
	return 0
}

//go:wasmexport proxy_on_delete
func onDelete(context uint32) {
	delete(roots, context)
	delete(values, context)
}

func info(text string) {
	proxyLog(logInfo, unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
}
