-- The settings of the process: names, types, and when they can be set.

local clib = require("resty.proxy-wasm.clib")
local pairs_of = require("resty.proxy-wasm.pairs")

local format = string.format
local get_phase = ngx.get_phase
local type = type

local lib = clib.lib

local function is_absolute_path(value)
    return type(value) == "string" and value:sub(1, 1) == "/" and not value:find("\0", 1, true),
        "an absolute path"
end

local CHECKS = {
    cache_dir = is_absolute_path,
    upstreams = pairs_of.are_strings,
}

-- Both of this Lua VM: a reload brings a new one, and with it new settings.
local set = false
local loaded = false

local _M = {}

-- From the first load on nothing can be set.
function _M.freeze()
    loaded = true
end

-- What is wrong with a call of setup; nil when nothing is. The names of upstreams are set with that: nothing else can
-- tell a good address, and nobody calls before the first load.
function _M.check(opts)
    if get_phase() ~= "init" then
        return "setup must be called in init_by_lua"
    end
    if set then
        return "setup was called before"
    end
    if loaded then
        return "setup must be called before the first load"
    end
    if type(opts) ~= "table" then
        return format("bad argument #1 to 'setup' (table expected, got %s)", type(opts))
    end
    for key, value in pairs(opts) do
        local valid = CHECKS[key]
        if not valid then
            return format("bad argument #1 to 'setup' (unknown key \"%s\")", tostring(key))
        end
        local ok, wanted = valid(value)
        if not ok then
            return format("bad argument #1 to 'setup' (%s must be %s)", key, wanted)
        end
    end
    local list, count = pairs_of.strings(opts.upstreams or {})
    if lib.rpw_upstreams(list, count, clib.error_slot) < 0 then
        return format("bad argument #1 to 'setup' (%s)", clib.last_error())
    end
end

-- Nil and the cause when the system refuses; then it can be tried again.
function _M.apply(opts)
    local dir = opts.cache_dir
    if dir and lib.rpw_cache_dir(dir, #dir, clib.error_slot) < 0 then
        return nil, "failed to set cache_dir: " .. clib.last_error()
    end
    set = true
    return true
end

return _M
