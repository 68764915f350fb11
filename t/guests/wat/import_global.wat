;; Imports from `env` what is not a function.
(module
  (import "env" "proxy_log" (global i32))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1")))
