;; Is always out of memory. Response header `x-status` is what proxy_get_property answered, two digits.
(module
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32)
    (i32.const 0))
  (func $put_status (param $status i32)
    (i32.store8 (i32.const 40) (i32.add (i32.const 48) (i32.div_u (local.get $status) (i32.const 10))))
    (i32.store8 (i32.const 41) (i32.add (i32.const 48) (i32.rem_u (local.get $status) (i32.const 10))))
    (drop (call $add (i32.const 2) (i32.const 32) (i32.const 8) (i32.const 40) (i32.const 2))))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $put_status
      (call $get (i32.const 48) (i32.const 11) (i32.const 0) (i32.const 4)))
    (i32.const 0))
  (data (i32.const 32) "x-status")
  (data (i32.const 48) "plugin_name"))
