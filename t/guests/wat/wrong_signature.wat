;; A callback of a type that it cannot have.
(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_request_headers") (param i64 f32) (result i64)
    (i64.const 0)))
