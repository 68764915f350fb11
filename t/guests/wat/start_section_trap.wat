;; A trap in the start section is a failure to load.
(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func $begin unreachable)
  (start $begin))
