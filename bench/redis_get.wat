;; Asks the upstream "redis" for the value of the key "key" in each request, and holds the request until 16 bytes have come;
;; with another answer it traps. 8192 streams at once.
(module
  (import "env" "proxy_redis_init"
    (func $init (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_redis_call"
    (func $redis_call (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $bytes (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "redis")
  (data (i32.const 32) "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n")
  (func (export "proxy_abi_version_0_2_100"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 512))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (i32.eqz (call $init (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 20000))))
  ;; The stream of a token.
  (func $slot (param $token i32) (result i32)
    (i32.add (i32.const 1024) (i32.mul (i32.rem_u (local.get $token) (i32.const 8192)) (i32.const 4))))
  (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
    (if (call $redis_call (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 22) (i32.const 8))
      (then unreachable))
    (i32.store (call $slot (i32.load (i32.const 8))) (local.get $id))
    (i32.const 1))
  ;; "$16\r\n", the value, "\r\n"
  (func (export "proxy_on_redis_call_response") (param i32) (param $token i32) (param i32) (param $size i32)
    (if (i32.ne (local.get $size) (i32.const 23)) (then unreachable))
    (if (call $bytes (i32.const 9) (i32.const 0) (local.get $size) (i32.const 0) (i32.const 4)) (then unreachable))
    (drop (call $effective (i32.load (call $slot (local.get $token)))))
    (drop (call $continue (i32.const 0)))))
