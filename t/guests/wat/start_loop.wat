;; Starting never ends: only a limit on time gets the host out of it.
(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "_initialize")
    (loop $again (br $again))))
