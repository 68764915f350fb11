;; Each callback is optional: a filter may have none at all.
(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1")))
