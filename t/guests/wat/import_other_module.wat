;; Imports a function from a module that is neither `env` nor WASI.
(module
  (import "foo" "bar" (func $bar (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $bar (i32.const 0))))
