;; Adds one to the first 8 of 100 shared bytes, 2000000 times: what a filter does that counts over all workers. The metric
;; `tries` counts the pairs of a get and a set that this took.
(module
  (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "keytries")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (local $n i32) (local $tries i64)
    (loop $again
      (local.set $tries (i64.add (local.get $tries) (i64.const 1)))
      (if (call $get (i32.const 16) (i32.const 3) (i32.const 0) (i32.const 4) (i32.const 8))
        (then unreachable))
      (i64.store (i32.const 4096) (i64.add (i64.load (i32.const 4096)) (i64.const 1)))
      ;; Another worker was faster: begin anew.
      (br_if $again
        (call $set (i32.const 16) (i32.const 3) (i32.const 4096) (i32.const 100) (i32.load (i32.const 8))))
      (br_if $again
        (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 2000000))))
    (drop (call $define (i32.const 0) (i32.const 19) (i32.const 5) (i32.const 0)))
    (drop (call $increment (i32.load (i32.const 0)) (local.get $tries)))
    (i32.const 0)))
