;; `_initialize` of a type that it cannot have.
(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "_initialize") (param i32)))
