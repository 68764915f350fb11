;; Makes as many gRPC calls to the upstream "grpc" for each request as its configuration has bytes, all at once, and holds the
;; request until they have answered with 16 bytes each; then the request goes on. With another answer it traps. One request
;; at a time.
(module
  (import "env" "proxy_grpc_call"
    (func $grpc_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "grpcsm")
  (global $count (mut i32) (i32.const 0))
  (global $left (mut i32) (i32.const 0))
  (global $stream (mut i32) (i32.const 0))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_configure") (param i32) (param $size i32) (result i32)
    (global.set $count (local.get $size))
    (i32.const 1))
  (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
    (if (global.get $left) (then unreachable))
    (global.set $stream (local.get $id))
    (loop $again
      (if (call $grpc_call (i32.const 16) (i32.const 4) (i32.const 20) (i32.const 1) (i32.const 21) (i32.const 1)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 20000) (i32.const 8))
        (then unreachable))
      (global.set $left (i32.add (global.get $left) (i32.const 1)))
      (br_if $again (i32.lt_u (global.get $left) (global.get $count))))
    (i32.const 1))
  (func (export "proxy_on_grpc_receive") (param i32 i32) (param $size i32)
    (if (i32.ne (local.get $size) (i32.const 16)) (then unreachable))
    (global.set $left (i32.sub (global.get $left) (i32.const 1)))
    (if (global.get $left) (then return))
    (drop (call $effective (global.get $stream)))
    (drop (call $continue (i32.const 0))))
  (func (export "proxy_on_grpc_close") (param i32 i32 i32) unreachable))
