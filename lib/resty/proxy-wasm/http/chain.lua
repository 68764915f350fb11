-- Chains: several filters as one, by the phases of nginx, with what becomes of a request when one fails.

local ffi = require("ffi")
local bit = require("bit")
local base = require("resty.core.base")
local clib = require("resty.proxy-wasm.clib")
local content = require("resty.proxy-wasm.http.content")
local header_lines = require("resty.proxy-wasm.http.header_lines")
local origin = require("resty.proxy-wasm.http.origin")
local request_body = require("resty.proxy-wasm.http.request_body")
local response = require("resty.proxy-wasm.http.response")
local stream = require("resty.proxy-wasm.http.stream")
local jobs = require("resty.proxy-wasm.jobs")

local band = bit.band
local error = error
local ffi_istype = ffi.istype
local ffi_str = ffi.string
local format = string.format
local get_phase = ngx.get_phase
local get_request = base.get_request
local getmetatable = getmetatable
local ngx = ngx
local ngx_exit = ngx.exit
local ngx_header = ngx.header
local ngx_var = ngx.var
local setmetatable = setmetatable
local type = type

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local last_error = clib.last_error
local TAKES_REQUEST_BODY = const.RPW_TAKES_REQUEST_BODY
local FAILS_OPEN = const.RPW_FAILS_OPEN
local TAKES_RESPONSE_BODY = const.RPW_TAKES_RESPONSE_BODY
local REWRITES_BODIES = const.RPW_REWRITES_BODIES
local BODY_REPLACE = const.RPW_BODY_REPLACE
local BODY_HOLD = const.RPW_BODY_HOLD
local BODY_LOST = const.RPW_BODY_LOST

local CHAINS_HOLD = stream.CHAINS_HOLD
local HELD = stream.HELD
local tell_request_headers = stream.tell_request_headers
local tell_response_headers = stream.tell_response_headers
local tell_response_piece = stream.tell_response_piece

local context_type = ffi.typeof("rpw_context_t *")

local SERVICE_UNAVAILABLE = 503
-- What gRPC clients read: HTTP 200, and UNAVAILABLE.
local function grpc_error(code, message)
    return { "content-type", "application/grpc", "grpc-status", code, "grpc-message", message }
end

local GRPC_UNAVAILABLE = grpc_error("14", "a filter failed")
-- RESOURCE_EXHAUSTED, which gRPC says of messages that are too large.
local GRPC_TOO_LARGE = grpc_error("8", "a filter holds the request body, and it is too large")

local Chain = {}
local metatable = { __index = Chain }

-- Where each method can be called.
local PHASES = {
    access = { rewrite = true, server_rewrite = true, access = true, content = true },
    header_filter = { header_filter = true },
    body_filter = { body_filter = true },
    content = { content = true },
}

-- Changes when a filter is replaced.
local replacements = lib.rpw_replacements()

-- Notes which filters are told of the bodies. What a filter was told before it is told still: requests that began with
-- the module of before continue.
local function learn(self)
    self.replacements = replacements[0]
    for i = 1, #self do
        local traits = lib.rpw_context_traits(self[i])
        self.takes_response_body[i] = self.takes_response_body[i] or band(traits, TAKES_RESPONSE_BODY) ~= 0
        if band(traits, TAKES_REQUEST_BODY) ~= 0 then
            self.takes_request_body = self.takes_request_body or {}
            self.takes_request_body[i] = true
            if band(traits, REWRITES_BODIES) ~= 0 then
                self.rewrites_bodies = self.rewrites_bodies or {}
                self.rewrites_bodies[i] = true
            end
        end
    end
end

local function check(self, method)
    if getmetatable(self) ~= metatable then
        error(format("call it as chain:%s()", method), 3)
    end
    local phase = get_phase()
    if not PHASES[method][phase] then
        error(format("chain:%s() cannot be called in phase %s", method, phase), 3)
    end
    if self.replacements ~= replacements[0] then
        learn(self)
    end
end

local function is_grpc()
    local content_type = ngx_var.content_type
    return content_type and content_type:find("^application/grpc") ~= nil
end

local function leave_out(ctx, started_too)
    if lib.rpw_stream_leave_out(ctx, get_request(), started_too, error_slot) < 0 then
        error(last_error(), 0)
    end
end

local function fails_open(ctx)
    return band(lib.rpw_context_traits(ctx), FAILS_OPEN) ~= 0
end

-- Logs why a filter failed and takes it out of the request. Returns whether the request continues without it.
local function skip(ctx, err, drops_body)
    local open = fails_open(ctx)
    local drops = drops_body and not open and 1 or 0
    local rc = lib.rpw_stream_skip(ctx, get_request(), drops, err, #err, error_slot)
    jobs.look()
    if rc < 0 then
        error(last_error(), 0)
    end
    return open
end

-- `status` is nil for 503.
local function refuse_request(status)
    if is_grpc() then
        return response.send(ngx.HTTP_OK, status and GRPC_TOO_LARGE or GRPC_UNAVAILABLE, "")
    end
    return ngx_exit(status or SERVICE_UNAVAILABLE)
end

local function replace_response()
    if is_grpc() then
        return response.replace_headers(ngx.HTTP_OK, GRPC_UNAVAILABLE, "")
    end
    return response.replace_headers(SERVICE_UNAVAILABLE, {}, "")
end

-- The filters behind one that answered a request have not seen it, and are told nothing of the response either. As in
-- Envoy.
local function leave_out_behind(self, index)
    for i = index + 1, #self do
        leave_out(self[i], 0)
    end
end

-- Ends a request that the filter of that index answered.
local function answer(self, index, local_response)
    leave_out_behind(self, index)
    return stream.stop(local_response)
end

-- What comes after a request callback of a filter: true, or the end of the request.
local function go_on(self, index, ok, what, status)
    if ok then
        return true
    elseif ok == false then
        return answer(self, index, what)
    elseif skip(self[index], what) then
        return true
    end
    leave_out_behind(self, index)
    return refuse_request(status)
end

-- Gives the request's body to the filters of these indexes that take it. Returns whether there is one.
local function give_body(self, takes, first, last)
    for i = first, last do
        if takes[i] then
            local there, ok, what, status = request_body.give(self[i])
            if not there then
                return false
            end
            go_on(self, i, ok, what, status)
        end
    end
    return true
end

-- A filter that paused gets the body before it is waited for, and so do those before it, whose changes it must see.
local function give_body_to_held(self, takes, first, index, expects_body)
    if not give_body(self, takes, first, index) then
        local ctx = self[index]
        if expects_body then
            -- It turned out to be empty, or a filter before made it so.
            go_on(self, index, request_body.give_end(ctx))
        else
            go_on(self, index, stream.wait_for_headers(ctx))
        end
    end
    return index + 1
end

-- Which filters get the body of this request: a table of what their indexes are true for, nil for none.
local function takers(self)
    if self.takes_request_body and is_grpc() then
        return self.rewrites_bodies
    end
    return self.takes_request_body
end

-- A filter that let the request continue may have answered it while another one held it.
local function look_for_answers(self)
    for i = 1, #self do
        local ok, what = stream.look_for_answer(self[i])
        if ok == false then
            stream.stop(what)
        end
    end
end

function Chain:access()
    check(self, "access")
    local waited = stream.waited()
    local takes = takers(self)
    local next_with_body = 1
    for i = 1, #self do
        local ok, what = tell_request_headers(self[i], CHAINS_HOLD, takes and takes[i])
        if ok == HELD then
            next_with_body = give_body_to_held(self, takes, next_with_body, i, what)
        elseif ok ~= true then
            go_on(self, i, ok, what)
        end
    end
    if takes then
        give_body(self, takes, next_with_body, #self)
    end
    if stream.waited() ~= waited then
        look_for_answers(self)
    end
    return true
end

-- The filter of that index answered in place of the response: that goes out as it is. As in Envoy.
local function leave_out_others(self, index)
    for i = 1, #self do
        if self[i] ~= self[index] then
            leave_out(self[i], 1)
        end
    end
end

function Chain:header_filter()
    check(self, "header_filter")
    for i = #self, 1, -1 do
        local ok, what = tell_response_headers(self[i], 0)
        if ok then
            -- The filter may rewrite the body.
            if what then
                ngx_header["Content-Length"] = nil
            end
        elseif ok == false then
            if what then
                leave_out_others(self, i)
            end
            stream.stop(what)
            return true
        elseif not skip(self[i], what, true) then
            -- The filters that are still to come see the answer that goes out.
            replace_response()
        end
    end
    return true
end

-- Tells a filter of a piece of the response's body. Returns what is passed on of it, whether that is another, and
-- whether the body ends with it.
local function give_response_piece(ctx, piece, is_last)
    local ok, what, outcome = tell_response_piece(ctx, piece, is_last)
    local action = outcome.body_action
    if ok then
        local ends = is_last or outcome.ends ~= 0
        if action == BODY_REPLACE then
            return ffi_str(outcome.body, outcome.body_length), true, ends
        elseif action == BODY_HOLD then
            return "", true, ends
        end
    elseif ok == false then
        stream.stop(what)
    elseif skip(ctx, what, true) and action ~= BODY_LOST then
        -- What the filter held is passed on as it is.
        if action == BODY_REPLACE then
            return ffi_str(outcome.body, outcome.body_length), true, is_last
        end
    else
        -- The headers are gone; all that is left is to cut the response off.
        error("the response is cut off: a filter failed", 0)
    end
    return piece, false, is_last
end

function Chain:body_filter()
    check(self, "body_filter")
    local arg = ngx.arg
    local is_last = arg[2]
    -- Making a string of a piece costs more than all else here, so that waits for a filter that wants it.
    local piece
    local changed = false
    local was_last = is_last
    for i = #self, 1, -1 do
        local takes = self.takes_response_body[i]
        if takes and not piece then
            piece = arg[1] or ""
        end
        local left, other, ends = give_response_piece(self[i], takes and piece or "", is_last)
        is_last = ends
        if other then
            piece, changed = left, true
            if left == "" and not is_last then
                break
            end
        end
    end
    if changed then
        arg[1] = piece ~= "" and piece or nil
    end
    if is_last and not was_last then
        -- ngx_lua throws away what still comes.
        arg[2] = true
    end
    return true
end

local function refuse_response()
    header_lines.clear()
    return refuse_request()
end

-- Answers with what another server answers. In place of header_filter and body_filter, for filters that wait in them.
function Chain:content(address)
    check(self, "content")
    if type(address) ~= "string" or not origin.address(address) then
        error("bad argument #1 to 'content' (unix:PATH or HOST:PORT expected)", 2)
    end
    return content(self, address, skip, fails_open, refuse_response)
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
    -- By index: which filters are told of the bodies; nil where none is told of a request's.
    local self = { takes_response_body = {} }
    for i, ctx in ipairs(contexts) do
        if not is_context(ctx) then
            error(format("bad argument #1 to 'new_chain' (contexts[%d] is not a plugin context)", i), 2)
        end
        self[i] = ctx
    end
    learn(self)
    for key in pairs(contexts) do
        if type(key) ~= "number" or not self[key] then
            error(format("bad argument #1 to 'new_chain' (contexts has a hole or the key %s)", tostring(key)), 2)
        end
    end
    return setmetatable(self, metatable)
end

return _M
