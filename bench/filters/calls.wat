;; Calls a host function that does nothing 100 times.
(module
  (import "env" "proxy_clear_route_cache" (func $nothing (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (local $n i32)
    (loop $again
      (drop (call $nothing))
      (br_if $again
        (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100))))
    (i32.const 0)))
