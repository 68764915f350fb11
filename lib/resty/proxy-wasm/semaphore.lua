-- Semaphores that the library may post. It hears when one goes, before ngx_lua frees it: a light thread that is killed,
-- or whose request ends, lets go of its semaphore without a word.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local semaphore = require("ngx.semaphore")

local C = ffi.C
local ffi_gc = ffi.gc
local lib = clib.lib

local function gone(sem)
    lib.rpw_semaphore_gone(sem)
    C.ngx_http_lua_ffi_sema_gc(sem)
end

local _M = {}

function _M.new()
    local sema, err = semaphore.new(0)
    if not sema then
        return nil, err
    end
    -- In place of resty.core's finalizer, which frees.
    ffi_gc(sema.sem, gone)
    return sema
end

return _M
