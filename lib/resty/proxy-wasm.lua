-- Proxy-Wasm filters for OpenResty. docs/api.md is the specification of this API.

local _M = {
    -- This and _VERSION tell the module from another one of the same file name.
    _NAME = "lua-resty-proxy-wasm",
}

-- Loads a part. Callers may swallow the error of `require`, so the error log gets its cause in one line.
local function part(name)
    local ok, found = pcall(require, "resty.proxy-wasm." .. name)
    if not ok then
        local cause = tostring(found):gsub("%s*\n%s*", "; ")
        ngx.log(ngx.ERR, "resty.proxy-wasm cannot be loaded: ", cause)
        error(found, 0)
    end
    return found
end

_M._VERSION = part("cdef").RPW_VERSION

if ngx.config.subsystem ~= "http" then
    return part("no_http")(_M, ngx.config.subsystem)
end

local ffi = require("ffi")
local chain = part("http.chain")
local clib = part("clib")
local filter_store = part("filter_store")
local foreign = part("foreign")
local handles = part("handles")
local jobs = part("jobs")
local loading = part("loading")
local metrics = part("metrics")
local options = part("options")
local pacing = part("pacing")
local replace = part("replace")
local settings = part("settings")
local shared = part("shared")
local status_page = part("status_page")
local stream = part("http.stream")

local ffi_gc = ffi.gc
local ffi_istype = ffi.istype
local ffi_str = ffi.string
local error = error
local format = string.format
local io_open = io.open
local type = type

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error

local NEED_INTERPRETER = clib.const.RPW_NEED_INTERPRETER

local plugin_type = ffi.typeof("rpw_plugin_t *")
local context_type = ffi.typeof("rpw_context_t *")
local plugin_slot = ffi.new("rpw_plugin_t *[1]")
local context_slot = ffi.new("rpw_context_t *[1]")

local handles_due = handles.due
local keep = handles.keep
local sweep = handles.sweep
local look_for_work = jobs.look
local made_context = pacing.made_context
local run_request_headers = stream.request_headers
local run_request_body = stream.request_body
local run_response_headers = stream.response_headers
local run_response_body = stream.response_body

-- The closure holds the library, which the collector could otherwise take before the handle.
local function free_plugin(plugin)
    lib.rpw_plugin_free(plugin)
end

-- A NULL pointer is of the right type, and equals nil.
local function is_handle(handle_type, handle)
    return type(handle) == "cdata" and ffi_istype(handle_type, handle) and handle ~= nil
end

-- What `plugin:NAME(…)` calls.
local plugin_methods = {}

ffi.metatype("rpw_plugin_t", { __index = plugin_methods })

function plugin_methods.replace(plugin, path, opts)
    if not is_handle(plugin_type, plugin) then
        return nil, "bad plugin"
    end
    return replace.replace(plugin, path, opts)
end

jit.off(plugin_methods.replace)

local function load_failed(cause)
    return nil, "failed to load wasm plugin: " .. cause
end

local function read_file(path)
    local file, err = io_open(path, "rb")
    if not file then
        return nil, err
    end
    local code
    code, err = file:read("*a")
    file:close()
    if not code then
        -- A directory, say: it opens, and its error names no file.
        return nil, path .. ": " .. err
    end
    return code
end

function _M.load(name, path, opts)
    if type(name) ~= "string" then
        return load_failed(format("name must be a string, got %s", type(name)))
    end
    if name == "" then
        return load_failed("name must not be empty")
    end
    if type(path) ~= "string" then
        return load_failed(format("path must be a string, got %s", type(path)))
    end
    local built, kept = options.build(name, opts)
    if not built then
        return load_failed(kept)
    end
    local file, missing = filter_store.file(path)
    if not file then
        return load_failed(missing)
    end
    -- What Lua has let go of ends first, and with it code that nothing else uses.
    handles.sweep_all()
    local rc
    if opts and opts.background then
        settings.freeze()
        local loaded, err, is_about_file = loading.wait(name, file)
        if not loaded then
            if is_about_file then
                return nil, err
            end
            return load_failed(err)
        end
        rc = lib.rpw_plugin_start(loaded, name, #name, built, plugin_slot, error_slot)
    else
        local code, err = read_file(file)
        if not code then
            return nil, err
        end
        settings.freeze()
        rc = lib.rpw_plugin_load(name, #name, code, #code, built, plugin_slot, error_slot)
    end
    if rc < 0 then
        return load_failed(last_error())
    end
    return ffi_gc(plugin_slot[0], free_plugin), kept and nil
end

-- Guests may call Lua below what is not compiled.
jit.off(_M.load)

local function configure_interpreted(plugin, conf)
    local rc = lib.rpw_context_new(plugin, conf, #conf, 1, context_slot, error_slot)
    return rc
end

jit.off(configure_interpreted)

function _M.on_configure(plugin, conf)
    if not is_handle(plugin_type, plugin) then
        return nil, "bad plugin"
    end
    if type(conf) == "nil" then
        conf = ""
    elseif type(conf) ~= "string" or conf == "" then
        if conf == "" then
            -- The error is a part of the documented API and stays as it is.
            ngx.log(ngx.INFO, 'wasm: on_configure: "" is bad conf; for no configuration leave it out or give nil')
        end
        return nil, "bad conf"
    end
    if handles_due[0] ~= 0 then
        sweep()
    end
    local rc = lib.rpw_context_new(plugin, conf, #conf, 0, context_slot, error_slot)
    if rc == NEED_INTERPRETER then
        rc = configure_interpreted(plugin, conf)
    end
    if rc < 0 then
        return nil, "failed to run proxy_on_configure: " .. last_error()
    end
    local ctx = context_slot[0]
    keep(ctx)
    made_context()
    look_for_work()
    return ctx
end

function _M.on_http_request_headers(ctx)
    if not is_handle(context_type, ctx) then
        return nil, "bad plugin ctx"
    end
    return run_request_headers(ctx)
end

function _M.on_http_request_body(ctx, body, end_of_body)
    if not is_handle(context_type, ctx) then
        return nil, "bad plugin ctx"
    end
    if type(body) == "nil" then
        body = ""
    elseif type(body) ~= "string" then
        return nil, "bad body"
    end
    return run_request_body(ctx, body, end_of_body)
end

function _M.on_http_response_headers(ctx)
    if not is_handle(context_type, ctx) then
        return nil, "bad plugin ctx"
    end
    return run_response_headers(ctx)
end

function _M.on_http_response_body(ctx)
    if not is_handle(context_type, ctx) then
        return nil, "bad plugin ctx"
    end
    return run_response_body(ctx)
end

-- To be called in init_worker_by_lua: makes the VMs before the first request, and starts their ticks.
function _M.init_worker()
    local rc = lib.rpw_init_worker(error_slot)
    if rc < 0 then
        return nil, last_error()
    end
    look_for_work()
    return true
end

jit.off(_M.init_worker)

_M.new_chain = chain.new

-- Shared data of the filters with that vm_id.
function _M.shared(vm_id)
    settings.freeze()
    return (shared.new(vm_id))
end

-- All metrics, as a list of tables.
function _M.metrics()
    settings.freeze()
    return metrics.list()
end

-- The same as text for Prometheus.
function _M.prometheus()
    settings.freeze()
    return metrics.prometheus()
end

-- The plugins of all workers, as a list of tables.
function _M.plugins()
    settings.freeze()
    return metrics.plugins()
end

-- Answers the request with the status page, or with its numbers. To be called in content_by_lua.
function _M.status_page()
    settings.freeze()
    return status_page.answer(_M._VERSION)
end

-- What the library was built from.
function _M.build()
    local built = ffi.new("rpw_version_t")
    lib.rpw_version(built)
    local fields = {}
    for _, name in ipairs({ "version", "commit", "wasmtime", "target" }) do
        fields[name] = ffi_str(built[name].data, built[name].length)
    end
    fields.path = clib.path
    return fields
end

function _M.register_foreign_function(name, fn, opts)
    local wrong = foreign.register(name, fn, opts)
    if wrong then
        error(wrong, 2)
    end
    return true
end

function _M.setup(opts)
    local wrong = settings.check(opts)
    if wrong then
        error(wrong, 2)
    end
    return settings.apply(opts)
end

settings.begin()

return _M
