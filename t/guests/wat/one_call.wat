;; Makes a call to the upstream "upstream" for each request and holds it until that has answered with 16 bytes; then the
;; request goes on. With another answer it traps. For benchmarks; 8192 streams at once.
(module
  (import "env" "proxy_http_call"
    (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "upstream")
  (func (export "proxy_abi_version_0_2_1"))
  ;; The stream of a token.
  (func $slot (param $token i32) (result i32)
    (i32.add (i32.const 1024) (i32.mul (i32.rem_u (local.get $token) (i32.const 8192)) (i32.const 4))))
  (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
    (if (call $http_call (i32.const 16) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
          (i32.const 0) (i32.const 0) (i32.const 20000) (i32.const 8))
      (then unreachable))
    (i32.store (call $slot (i32.load (i32.const 8))) (local.get $id))
    (i32.const 1))
  (func (export "proxy_on_http_call_response") (param i32) (param $token i32) (param i32) (param $size i32) (param i32)
    (if (i32.ne (local.get $size) (i32.const 16)) (then unreachable))
    (drop (call $effective (i32.load (call $slot (local.get $token)))))
    (drop (call $continue (i32.const 0)))))
