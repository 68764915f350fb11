-- Chains: several filters as one, by the phases of nginx, with what becomes of a request when one fails.

local ffi = require("ffi")
local bit = require("bit")
local base = require("resty.core.base")
local clib = require("resty.proxy-wasm.clib")
local response = require("resty.proxy-wasm.response")
local stream = require("resty.proxy-wasm.stream")
local work = require("resty.proxy-wasm.work")

local band = bit.band
local error = error
local ffi_istype = ffi.istype
local format = string.format
local get_phase = ngx.get_phase
local get_request = base.get_request
local getmetatable = getmetatable
local io_open = io.open
local ngx = ngx
local ngx_exit = ngx.exit
local ngx_req = ngx.req
local ngx_var = ngx.var
local setmetatable = setmetatable
local type = type

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local last_error = clib.last_error
local TAKES_REQUEST_BODY = const.RPW_TAKES_REQUEST_BODY
local FAILS_OPEN = const.RPW_FAILS_OPEN

local context_type = ffi.typeof("rpw_context_t *")

local SERVICE_UNAVAILABLE = 503
-- What gRPC clients read: HTTP 200, and UNAVAILABLE.
local GRPC_UNAVAILABLE = {
    "content-type",
    "application/grpc",
    "grpc-status",
    "14",
    "grpc-message",
    "a filter failed",
}

local Chain = {}
local metatable = { __index = Chain }

-- Where each method can be called.
local PHASES = {
    access = { rewrite = true, server_rewrite = true, access = true, content = true },
    header_filter = { header_filter = true },
    body_filter = { body_filter = true },
}

local function check(self, method)
    if getmetatable(self) ~= metatable then
        error(format("call it as chain:%s()", method), 3)
    end
    local phase = get_phase()
    if not PHASES[method][phase] then
        error(format("chain:%s() cannot be called in phase %s", method, phase), 3)
    end
end

local function is_grpc()
    local content_type = ngx_var.content_type
    return content_type and content_type:find("^application/grpc") ~= nil
end

-- Logs why a filter failed and takes it out of the request. Returns whether the request goes on without it.
local function skip(ctx, err, drops_body)
    local open = band(lib.rpw_context_traits(ctx), FAILS_OPEN) ~= 0
    local drops = drops_body and not open and 1 or 0
    local rc = lib.rpw_stream_skip(ctx, get_request(), drops, err, #err, error_slot)
    work.look()
    if rc < 0 then
        error(last_error(), 0)
    end
    return open
end

local function refuse_request()
    if is_grpc() then
        return response.send(ngx.HTTP_OK, GRPC_UNAVAILABLE, "")
    end
    return ngx_exit(SERVICE_UNAVAILABLE)
end

local function replace_response()
    if is_grpc() then
        return response.replace_headers(ngx.HTTP_OK, GRPC_UNAVAILABLE, "")
    end
    return response.replace_headers(SERVICE_UNAVAILABLE, {}, "")
end

local function read_file(path)
    local file, err = io_open(path, "rb")
    if not file then
        return nil, err
    end
    local body
    body, err = file:read("*a")
    file:close()
    return body, err
end

-- The request's body, in memory or in a temporary file; nil when there is none.
local function request_body()
    ngx_req.read_body()
    local body = ngx_req.get_body_data()
    if body then
        return body
    end
    local path = ngx_req.get_body_file()
    if path then
        return read_file(path)
    end
end

local function request_bodies(self)
    for i = 1, #self do
        local ctx = self[i]
        if band(lib.rpw_context_traits(ctx), TAKES_REQUEST_BODY) ~= 0 then
            -- Anew for each: the filter before may have replaced it.
            local body, err = request_body()
            if not body and not err then
                return true
            end
            local ok
            if body then
                ok, err = stream.request_body(ctx, body, true)
            end
            if not ok and not skip(ctx, err) then
                return refuse_request()
            end
        end
    end
    return true
end

function Chain:access()
    check(self, "access")
    for i = 1, #self do
        local ok, err = stream.request_headers(self[i])
        if not ok and not skip(self[i], err) then
            return refuse_request()
        end
    end
    if self.takes_request_body then
        return request_bodies(self)
    end
    return true
end

function Chain:header_filter()
    check(self, "header_filter")
    for i = #self, 1, -1 do
        local ok, err = stream.response_headers(self[i])
        if not ok and not skip(self[i], err, true) then
            -- The filters that are still to come see the answer that goes out.
            replace_response()
        end
    end
    return true
end

function Chain:body_filter()
    check(self, "body_filter")
    for i = #self, 1, -1 do
        local ok, err = stream.response_body(self[i])
        if not ok and not skip(self[i], err, true) then
            -- The headers are gone; all that is left is to cut the response off.
            error("the response is cut off: a filter failed", 0)
        end
    end
    return true
end

local function is_context(value)
    -- A NULL pointer is of the right type, and equals nil.
    return type(value) == "cdata" and ffi_istype(context_type, value) and value ~= nil
end

local _M = {}

-- Makes a chain of plugin contexts. Wrong arguments are raised as the caller's.
function _M.new(contexts, opts)
    if type(contexts) ~= "table" then
        error(format("bad argument #1 to 'new_chain' (table of plugin contexts expected, got %s)", type(contexts)), 2)
    end
    if type(opts) ~= "nil" and (type(opts) ~= "table" or next(opts) ~= nil) then
        error("bad argument #2 to 'new_chain' (a chain has no options)", 2)
    end
    local self = {}
    for i, ctx in ipairs(contexts) do
        if not is_context(ctx) then
            error(format("bad argument #1 to 'new_chain' (contexts[%d] is not a plugin context)", i), 2)
        end
        self[i] = ctx
        if band(lib.rpw_context_traits(ctx), TAKES_REQUEST_BODY) ~= 0 then
            self.takes_request_body = true
        end
    end
    for key in pairs(contexts) do
        if type(key) ~= "number" or not self[key] then
            error(format("bad argument #1 to 'new_chain' (contexts has a hole or the key %s)", tostring(key)), 2)
        end
    end
    return setmetatable(self, metatable)
end

return _M
