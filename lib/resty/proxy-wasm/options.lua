-- The options of load: names, types, defaults.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local pairs_of = require("resty.proxy-wasm.pairs")
local rules = require("resty.proxy-wasm.rules")
local settings = require("resty.proxy-wasm.settings")

local format = string.format

local MIB = 1024 * 1024
local MAX_MEMORY = 4096 * MIB
local MAX_BODY = 128 * MIB
local MAX_MS = 2 ^ 31 - 1

local function is_string(value)
    return type(value) == "string" and true or nil, "a string"
end

local function is_number(min, max, unit)
    local wanted = format("a whole number of %s from %d to %d", unit, min, max)
    return function(value)
        local ok = type(value) == "number" and value >= min and value <= max and value % 1 == 0
        return ok or nil, wanted
    end
end

local function is_boolean(value)
    return type(value) == "boolean" or nil, "true or false"
end

local function is_fail(value)
    return (value == "closed" or value == "open") or nil, [["closed" or "open"]]
end

local milliseconds = is_number(1, MAX_MS, "milliseconds")

local CHECKS = {
    vm_config = is_string,
    root_id = is_string,
    vm_id = is_string,
    env = pairs_of.are_strings,
    memory_limit = is_number(65536, MAX_MEMORY, "bytes"),
    time_limit = milliseconds,
    start_time_limit = milliseconds,
    pause_timeout = milliseconds,
    body_limit = is_number(1, MAX_BODY, "bytes"),
    fail = is_fail,
    body = is_boolean,
    calls_hold = is_boolean,
    calls = rules.are_rules,
    background = is_boolean,
}

local DEFAULT_MEMORY = 256 * MIB
local DEFAULT_TIME_MS = 1000
local DEFAULT_START_TIME_MS = 30000
local DEFAULT_PAUSE_MS = 60000

local function check(opts)
    if type(opts) ~= "table" then
        return nil, format("opts must be a table, got %s", type(opts))
    end
    for key, value in pairs(opts) do
        local valid = CHECKS[key]
        if not valid then
            return nil, format("unknown option \"%s\"", tostring(key))
        end
        local ok, wanted = valid(value)
        if not ok then
            return nil, format("option \"%s\" must be %s", key, wanted)
        end
    end
    return true
end

local _M = {}

-- The options as the library takes them, and a table of what they point to, to be kept until the call is over. Without
-- a name the library takes that of the plugin that it knows. Nil and what is wrong when something is.
function _M.build(name, opts)
    opts = type(opts) == "nil" and {} or opts
    local ok, err = check(opts)
    if not ok then
        return nil, err
    end
    local options = ffi.new("rpw_options_t")
    local vm_config = opts.vm_config or ""
    local root_id = opts.root_id or name
    local vm_id = opts.vm_id or ""
    local env, count = pairs_of.strings(opts.env or {})
    options.vm_config, options.vm_config_length = vm_config, #vm_config
    options.root_id, options.root_id_length = root_id, root_id and #root_id or 0
    options.vm_id, options.vm_id_length = vm_id, #vm_id
    options.env, options.env_length = env, count
    options.memory_limit = opts.memory_limit or DEFAULT_MEMORY
    options.time_limit = opts.time_limit or DEFAULT_TIME_MS
    options.start_time_limit = opts.start_time_limit or DEFAULT_START_TIME_MS
    options.pause_timeout = opts.pause_timeout or DEFAULT_PAUSE_MS
    options.body_limit = opts.body_limit or settings.body_limit()
    options.fail_open = opts.fail == "open" and 1 or 0
    options.body = opts.body and 1 or 0
    local calls, calls_count, calls_kept = rules.pairs(opts.calls)
    options.calls, options.calls_length = calls, calls_count
    local calls_hold = opts.calls_hold
    if calls_hold == nil then
        calls_hold = settings.calls_hold
    end
    options.calls_hold = calls_hold == nil and -1 or calls_hold and 1 or 0
    return options, { vm_config, root_id, vm_id, env, opts.env, clib.lib, calls, calls_kept }
end

return _M
