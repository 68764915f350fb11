-- Replacing the module of a plugin while nginx serves: src/ffi/replace.rs says how.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local filter_store = require("resty.proxy-wasm.filter_store")
local loading = require("resty.proxy-wasm.loading")
local options = require("resty.proxy-wasm.options")
local jobs = require("resty.proxy-wasm.jobs")

local concat = table.concat
local ffi_gc = ffi.gc
local ffi_str = ffi.string
local exiting = ngx.worker.exiting
local format = string.format
local ngx_log = ngx.log
local timer_at = ngx.timer.at
local tonumber = tonumber
local tostring = tostring
local type = type

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error
local MISSING = clib.const.RPW_MISSING

-- By which plans of another configuration are known.
local lua_vm = lib.rpw_lua_vm()

local plan = ffi.new("rpw_plan_t")

-- The options of `load` in words: a letter for the type, then the value.
local function to_words(value, out)
    local kind = type(value)
    if kind == "table" then
        out[#out + 1] = "{"
        for key, item in pairs(value) do
            to_words(key, out)
            to_words(item, out)
        end
        out[#out + 1] = "}"
    elseif kind == "string" then
        out[#out + 1] = "s" .. #value .. ":"
        out[#out + 1] = value
    elseif kind == "number" then
        out[#out + 1] = format("n%.17g;", value)
    else
        out[#out + 1] = value and "t" or "f"
    end
    return out
end

-- Reads a value at `at`; returns it, and where the next one is.
local function from_words(words, at)
    local kind = words:sub(at, at)
    if kind == "{" then
        local value, key = {}
        at = at + 1
        while words:sub(at, at) ~= "}" do
            key, at = from_words(words, at)
            value[key], at = from_words(words, at)
        end
        return value, at + 1
    elseif kind == "s" then
        local stop = words:find(":", at, true)
        local last = stop + tonumber(words:sub(at + 1, stop - 1))
        return words:sub(stop + 1, last), last + 1
    elseif kind == "n" then
        local stop = words:find(";", at, true)
        return tonumber(words:sub(at + 1, stop - 1)), stop + 1
    end
    return kind == "t", at + 1
end

local function failed(cause)
    return nil, "failed to replace wasm plugin: " .. cause
end

local function free_plugin(plugin)
    lib.rpw_plugin_free(plugin)
end

local name_slot = ffi.new("const char *[1]")
local size_slot = ffi.new("size_t[1]")

local function name_of(plugin)
    lib.rpw_plugin_name(plugin, name_slot, size_slot)
    return ffi_str(name_slot[0], size_slot[0])
end

local _M = {}

-- Replaces the module of a plugin in this worker, and has the others follow.
function _M.replace(plugin, path, opts)
    if type(path) ~= "string" then
        return failed(format("path must be a string, got %s", type(path)))
    end
    local built, kept
    if type(opts) ~= "nil" then
        built, kept = options.build(nil, opts)
        if not built then
            return failed(kept)
        end
    end
    local file, missing = filter_store.file(path)
    if not file then
        return failed(missing)
    end
    local loaded, err = loading.wait(name_of(plugin), file)
    if not loaded then
        return failed(err)
    end
    local words = opts and concat(to_words(opts, {})) or ""
    local rc = lib.rpw_plugin_replace(plugin, loaded, built, lua_vm, path, #path, words, #words, error_slot)
    jobs.look()
    if rc < 0 then
        return failed(last_error())
    end
    return true, kept and nil
end

-- Guests may call Lua below what is not compiled.
jit.off(_M.replace)

-- Returns true, or false when a later plan has replaced the plugin meanwhile. On failure: nil and the cause.
local function follow_one(name, plugin, path, words, number, digest)
    local built, kept
    if words ~= "" then
        built, kept = options.build(name, (from_words(words, 1)))
        if not built then
            return nil, kept
        end
    end
    local file, missing = filter_store.file(path)
    if not file then
        return nil, missing
    end
    local loaded, err = loading.wait(name, file)
    if not loaded then
        return nil, err
    end
    local rc = lib.rpw_plugin_follow(plugin, loaded, built, number, digest, error_slot)
    if rc ~= MISSING and rc < 0 then
        return nil, last_error()
    end
    return rc ~= MISSING, kept and nil
end

jit.off(follow_one)

local following = false
local again = false

local function follow(premature)
    while not premature do
        again = false
        local rc = lib.rpw_plan_next(lua_vm, plan, error_slot)
        if rc == MISSING and not again then
            break
        elseif rc < 0 then
            ngx_log(ngx.ERR, "wasm: ", last_error())
            break
        elseif rc ~= MISSING then
            local name, path = ffi_str(plan.name, plan.name_length), ffi_str(plan.path, plan.path_length)
            local plugin = ffi_gc(plan.plugin, free_plugin)
            local ok, err = follow_one(name, plugin, path, ffi_str(plan.options, plan.options_length),
                plan.number, ffi_str(plan.digest, 32))
            if ok then
                ngx_log(ngx.INFO, format('wasm plugin "%s": replaced by %s, as another worker has', name, path))
            elseif ok == nil then
                -- A worker that ends replaces nothing, and that is no fault.
                ngx_log(exiting() and ngx.INFO or ngx.ERR,
                    format('wasm plugin "%s": not replaced by %s, as another worker has: %s', name, path,
                        tostring(err)))
            end
            jobs.look()
        end
    end
    following = false
end

-- Another worker has replaced a plugin.
function jobs.on_follow()
    again = true
    if following then
        return
    end
    following = true
    local ok, err = timer_at(0, follow)
    if not ok then
        following = false
        ngx_log(ngx.ERR, "wasm: no timer to replace plugins in: ", err)
    end
end

return _M
