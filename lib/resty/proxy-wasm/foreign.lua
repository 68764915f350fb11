-- Functions of Lua that filters call by proxy_call_foreign_function.

local ffi = require("ffi")
local base = require("resty.core.base")
local clib = require("resty.proxy-wasm.clib")

local ffi_cast = ffi.cast
local ffi_str = ffi.string
local format = string.format
local get_request = base.get_request
local ngx_log = ngx.log
local pcall = pcall
local type = type

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error

local functions = {}

-- By this name the library asks for upstreams that `setup` does not list; no filter can.
local UPSTREAMS = ""

local function complain(name, err)
    local what = name == UPSTREAMS and "the function of upstreams" or 'foreign function "' .. name .. '"'
    ngx_log(ngx.ERR, "wasm: ", what, ": ", err)
end

local _M = {}

-- Runs a function. Returns whether it worked, and its result.
function _M.call(name, arguments)
    local ok, result = pcall(functions[name], arguments)
    if not ok then
        complain(name, tostring(result))
        return false, ""
    end
    if type(result) == "nil" then
        return true, ""
    elseif type(result) ~= "string" then
        complain(name, format("returned a %s (a string or nil expected)", type(result)))
        return false, ""
    end
    return true, result
end

local call = _M.call

-- Takes the request away from the running coroutine, or gives it back. ngx_lua's functions that yield note in the
-- request that they do, before the yield turns out to be impossible, and that can crash the worker later. Without a
-- request they raise an error first.
local set_request
local has_exdata, exdata = pcall(require, "thread.exdata")
if has_exdata and exdata then
    local NONE = ffi_cast("void *", nil)
    function set_request(r)
        exdata(r or NONE)
    end
else
    function set_request(r)
        rawset(getfenv(0), "__ngx_req", r)
    end
end

-- Kept until the library has copied it.
local last_result

-- The library calls this in the middle of a guest's call, so it neither raises errors nor yields, and neither does what
-- it runs.
local function answer(name, name_length, arguments, arguments_length, out)
    local r = get_request()
    set_request(nil)
    local ok, result = call(ffi_str(name, name_length), ffi_str(arguments, arguments_length))
    set_request(r)
    if not ok then
        return 1
    end
    last_result = result
    out.data, out.length = last_result, #last_result
    return 0
end

-- One for all, since each takes a slot of LuaJIT's for good. When the Lua VM is closed it goes with it.
local caller

local function make_caller()
    if caller then
        return
    end
    local callback = ffi_cast("rpw_caller_t", answer)
    lib.rpw_foreign_caller(callback)
    caller = ffi.gc(callback, function()
        lib.rpw_foreign_caller(nil)
    end)
end

local OPTIONS = { async = "boolean" }

local function check(name, fn, opts)
    if type(name) ~= "string" or name == "" then
        return format("#1 to 'register_foreign_function' (a name expected, got %s)", name == "" and '""' or type(name))
    elseif type(fn) ~= "function" then
        return format("#2 to 'register_foreign_function' (function expected, got %s)", type(fn))
    elseif type(opts) ~= "nil" and type(opts) ~= "table" then
        return format("#3 to 'register_foreign_function' (table expected, got %s)", type(opts))
    end
    for key, value in pairs(opts or {}) do
        if not OPTIONS[key] then
            return format("#3 to 'register_foreign_function' (unknown key \"%s\")", tostring(key))
        elseif type(value) ~= OPTIONS[key] then
            return format("#3 to 'register_foreign_function' (%s must be a %s)", key, OPTIONS[key])
        end
    end
end

-- What is wrong; nil when the function was registered.
function _M.register(name, fn, opts)
    local wrong = check(name, fn, opts)
    if wrong then
        return "bad argument " .. wrong
    end
    local later = opts and opts.async and 1 or 0
    if lib.rpw_foreign_function(name, #name, later, error_slot) < 0 then
        return last_error()
    end
    if later == 0 then
        make_caller()
    end
    functions[name] = fn
end

-- Has a function asked for upstreams that `setup` does not list.
function _M.knows_upstreams(fn)
    make_caller()
    functions[UPSTREAMS] = fn
end

return _M
