;; Wants 4 GiB at once, more than any plugin may have.
(module
  (memory (export "memory") 65536)
  (func (export "proxy_abi_version_0_2_1")))
