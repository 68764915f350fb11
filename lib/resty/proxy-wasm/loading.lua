-- Waiting for a module that the library loads in the background: src/ffi/loading.rs says how.
--
-- The light thread looks by itself whether it is done, soon at first and then 20 times a second: nothing but a socket
-- could wake nginx from another thread, and a wait of seconds is not much longer for it.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")

local ffi_gc = ffi.gc
local format = string.format
local get_phase = ngx.get_phase
local exiting = ngx.worker.exiting
local min = math.min
local sleep = ngx.sleep

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error
local PAUSE = clib.const.RPW_PAUSE
local UNREADABLE = clib.const.RPW_UNREADABLE

local slot = ffi.new("rpw_loading_t *[1]")

-- Phases whose coroutine can wait.
local CAN_WAIT = {
    rewrite = true,
    server_rewrite = true,
    access = true,
    content = true,
    timer = true,
}

-- Seconds between two looks.
local SHORTEST, LONGEST = 0.001, 0.05

-- The closure holds the library, which the collector could otherwise take before the handle.
local function free(loading)
    lib.rpw_loading_free(loading)
end

local _M = {}

-- A module that is loaded, for the plugin of that name. Nil and the cause when it cannot be, and whether that is about
-- the file alone.
function _M.wait(name, path)
    local phase = get_phase()
    if not CAN_WAIT[phase] then
        return nil, format("a module can be loaded in the background in rewrite, access, content and timer contexts, "
            .. "and this is %s", phase)
    end
    if lib.rpw_loading_begin(name, #name, path, #path, slot, error_slot) < 0 then
        return nil, last_error()
    end
    local loading = ffi_gc(slot[0], free)
    local pause = SHORTEST
    while true do
        local rc = lib.rpw_loading_state(loading, error_slot)
        if rc ~= PAUSE then
            if rc < 0 then
                return nil, last_error(), rc == UNREADABLE
            end
            return loading
        elseif exiting() then
            return nil, "the worker is about to end"
        end
        sleep(pause)
        pause = min(2 * pause, LONGEST)
    end
end

return _M
