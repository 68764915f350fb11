-- The settings of the process: names, types, and when they can be set.

local clib = require("resty.proxy-wasm.clib")
local foreign = require("resty.proxy-wasm.foreign")
local pairs_of = require("resty.proxy-wasm.pairs")
local rules = require("resty.proxy-wasm.rules")
local trust = require("resty.proxy-wasm.trust")

local format = string.format
local get_phase = ngx.get_phase
local type = type

local lib = clib.lib

local function is_absolute_path(value)
    return type(value) == "string" and value:sub(1, 1) == "/" and not value:find("\0", 1, true),
        "an absolute path"
end

local UNITS = { [""] = 1, k = 1024, m = 1024 ^ 2, g = 1024 ^ 3 }
local MIN_SHARED = 256 * 1024
local MAX_SHARED = 32 * 1024 ^ 3

-- Bytes, as a number or as nginx writes sizes. Nil when they are no such thing.
local function bytes(value)
    if type(value) == "string" then
        local number, unit = value:lower():match("^(%d+)([kmg]?)$")
        value = number and tonumber(number) * UNITS[unit]
    end
    return type(value) == "number" and value % 1 == 0 and value or nil
end

local function is_size(value)
    local size = bytes(value)
    return size and size >= MIN_SHARED and size <= MAX_SHARED, [[a size from "256k" to "32g"]]
end

local DEFAULT_BODY = 16 * 1024 ^ 2
local MAX_BODY = 128 * 1024 ^ 2

local function is_body_limit(value)
    local size = bytes(value)
    return size and size >= 1 and size <= MAX_BODY, [[a size from 1 to "128m"]]
end

local MAX_THREADS = 1024

local function is_thread_count(value)
    return type(value) == "number" and value >= 1 and value <= MAX_THREADS and value % 1 == 0,
        format("a whole number from 1 to %d", MAX_THREADS)
end

local MIN_COMPILE = 1024 ^ 2
local MAX_COMPILE = 1024 ^ 4

local function is_compile_memory(value)
    local size = bytes(value)
    return size and size >= MIN_COMPILE and size <= MAX_COMPILE, [[a size from "1m" to "1024g"]]
end

local function is_eviction(value)
    return value == "none" or value == "lru", [["none" or "lru"]]
end

local function is_boolean(value)
    return type(value) == "boolean", "true or false"
end

local CHECKS = {
    calls_hold = is_boolean,
    calls = rules.are_rules,
    cache_dir = is_absolute_path,
    filter_store = is_absolute_path,
    compile_threads = is_thread_count,
    compile_memory = is_compile_memory,
    shared_memory = is_size,
    eviction = is_eviction,
    body_limit = is_body_limit,
    upstreams = trust.are_upstreams,
    trusted_certificate = is_absolute_path,
}

-- Both of this Lua VM: a reload brings a new one, and with it new settings.
local set = false
local loaded = false
local body_limit = DEFAULT_BODY

local _M = {}

-- Workers find what the master made before it forked them; what a reload finds is there already.
local function share(size)
    return lib.rpw_shared_memory(size, clib.error_slot) >= 0
end

local function evict(eviction)
    return lib.rpw_shared_eviction(eviction == "lru" and 1 or 0, clib.error_slot) >= 0
end

-- To be called when the module is loaded.
function _M.begin()
    if get_phase() == "init" and not share(0) then
        ngx.log(ngx.ERR, "wasm: no shared memory: ", clib.last_error())
    end
end

-- From the first load on nothing can be set.
function _M.freeze()
    if not loaded and not set and get_phase() == "init" then
        evict("none")
    end
    loaded = true
end

-- What is wrong with a call of setup; nil when nothing is. The names of upstreams are set with that: nothing else can
-- tell a good address, and there are no calls before the first load.
function _M.check(opts)
    if get_phase() ~= "init" then
        return "setup must be called in init_by_lua"
    end
    if set then
        return "setup was called before"
    end
    if loaded then
        return "setup must be called before the first load, shared, metrics or prometheus"
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
    local addresses, other_upstreams = trust.addresses(opts.upstreams)
    local list, count = pairs_of.strings(addresses)
    if lib.rpw_upstreams(list, count, other_upstreams and 1 or 0, clib.error_slot) < 0 then
        return format("bad argument #1 to 'setup' (%s)", clib.last_error())
    end
    if other_upstreams then
        foreign.knows_upstreams(other_upstreams)
    end
    local entries, entries_count, kept = rules.pairs(opts.calls)
    if lib.rpw_call_rules(entries, entries_count, clib.error_slot) < 0 then
        return format("bad argument #1 to 'setup' (%s)", clib.last_error())
    end
    return nil, kept and nil
end

-- Nil and the cause when the system refuses; then it can be tried again.
function _M.apply(opts)
    body_limit = bytes(opts.body_limit) or DEFAULT_BODY
    local dir = opts.cache_dir
    if dir and lib.rpw_cache_dir(dir, #dir, clib.error_slot) < 0 then
        return nil, "failed to set cache_dir: " .. clib.last_error()
    end
    if opts.compile_threads then
        lib.rpw_compile_threads(opts.compile_threads)
    end
    if opts.compile_memory then
        lib.rpw_compile_memory(bytes(opts.compile_memory))
    end
    if opts.shared_memory and not share(bytes(opts.shared_memory)) then
        return nil, "failed to set shared_memory: " .. clib.last_error()
    end
    if opts.trusted_certificate then
        local ok, err = trust.set(opts.trusted_certificate)
        if not ok then
            return nil, "failed to set trusted_certificate: " .. err
        end
    end
    local ok, err = trust.set_upstreams(opts.upstreams)
    if not ok then
        return nil, "failed to set upstreams: " .. err
    end
    if not evict(opts.eviction) then
        return nil, "failed to set eviction: " .. clib.last_error()
    end
    _M.calls_hold = opts.calls_hold
    _M.filter_store = opts.filter_store
    set = true
    return true
end

-- The bytes of a body that are held for a filter whose `load` does not say it.
function _M.body_limit()
    return body_limit
end

return _M
