-- Does what a guest asked for, in order.

local ffi = require("ffi")
local base = require("resty.core.base")
local clib = require("resty.proxy-wasm.clib")
local header_lines = require("resty.proxy-wasm.http.header_lines")
local ngx_req_core = require("ngx.req")
local ngx_resp = require("ngx.resp")

local ffi_new = ffi.new
local ffi_str = ffi.string
local get_request = base.get_request
local has_no_body = require("resty.proxy-wasm.http.response").has_no_body
local ngx = ngx
local ngx_header = ngx.header
local ngx_req = ngx.req
local add_request_header = ngx_req_core.add_header
local add_response_header = ngx_resp.add_header
local error = error

local lib = clib.lib
local error_slot = clib.error_slot

local const = clib.const
local SET_REQUEST_HEADER = const.RPW_SET_REQUEST_HEADER
local ADD_REQUEST_HEADER = const.RPW_ADD_REQUEST_HEADER
local REMOVE_REQUEST_HEADER = const.RPW_REMOVE_REQUEST_HEADER
local SET_RESPONSE_HEADER = const.RPW_SET_RESPONSE_HEADER
local ADD_RESPONSE_HEADER = const.RPW_ADD_RESPONSE_HEADER
local REMOVE_RESPONSE_HEADER = const.RPW_REMOVE_RESPONSE_HEADER
local SET_METHOD = const.RPW_SET_METHOD
local SET_PATH = const.RPW_SET_PATH
local SET_STATUS = const.RPW_SET_STATUS
local LOCAL_RESPONSE = const.RPW_LOCAL_RESPONSE
local LOCAL_RESPONSE_HEADER = const.RPW_LOCAL_RESPONSE_HEADER

-- A path may hold what a client can send in escapes: control characters, too.
local IS_BINARY = true

-- What is done for effects whose number is 1.
local SPECIAL = {
    [SET_REQUEST_HEADER] = header_lines.set_of_request,
    [ADD_REQUEST_HEADER] = header_lines.add_to_request,
    [SET_RESPONSE_HEADER] = header_lines.set,
    [ADD_RESPONSE_HEADER] = header_lines.add,
    [REMOVE_RESPONSE_HEADER] = header_lines.remove,
}

local flags_before, flags_after = ffi_new("rpw_flags_t"), ffi_new("rpw_flags_t")

local function set_path(path, effect)
    local query = ""
    if effect.number > 0 then
        query = ffi_str(effect.value + effect.number, effect.value_length - effect.number):match("^[^#]*")
    end
    local r = get_request()
    lib.rpw_request_flags(r, flags_before, error_slot)
    ngx_req.set_uri_args(query)
    lib.rpw_request_flags(r, flags_after, error_slot)
    ngx_req.set_uri(path, false, IS_BINARY)
    lib.rpw_request_target(r, flags_before, flags_after, effect.value, effect.value_length, error_slot)
end

local function set_method(name, effect)
    if effect.number == 1 then
        lib.rpw_request_method(get_request(), effect.value, effect.value_length, error_slot)
    else
        ngx_req.set_method(ngx["HTTP_" .. name])
    end
end

local function set_status(status)
    -- Without a body so far: a length would be that of another response.
    if has_no_body(ngx.status) and not has_no_body(status) then
        ngx_header["Content-Length"] = nil
    end
    ngx.status = status
end

-- ngx.req.set_header takes an empty value for no header.
local function set_request_header(name, value)
    if value == "" then
        ngx_req.clear_header(name)
        add_request_header(name, value)
    else
        ngx_req.set_header(name, value)
    end
end

-- Everything that has a name and a value and is not the hot path's own effect: setting a response header.
local function apply_change(kind, effect)
    local name = ffi_str(effect.name, effect.name_length)
    local value = ffi_str(effect.value, effect.value_length)
    if effect.number == 1 and SPECIAL[kind] then
        SPECIAL[kind](name, value)
    elseif kind == ADD_RESPONSE_HEADER then
        add_response_header(name, value)
    elseif kind == REMOVE_RESPONSE_HEADER then
        ngx_header[name] = nil
    elseif kind == SET_REQUEST_HEADER then
        set_request_header(name, value)
    elseif kind == ADD_REQUEST_HEADER then
        add_request_header(name, value)
    elseif kind == REMOVE_REQUEST_HEADER then
        ngx_req.clear_header(name)
    elseif kind == SET_METHOD then
        set_method(value, effect)
    elseif kind == SET_PATH then
        set_path(name, effect)
    elseif kind == SET_STATUS then
        set_status(effect.number)
    else
        error("resty.proxy-wasm: the library asks for effect " .. kind .. ", which these Lua files do not know")
    end
end

-- Applies an effect. Returns the local response so far, which the effect may be, or be a part of.
local function apply_one(effect, response)
    local kind = effect.kind
    if kind == SET_RESPONSE_HEADER and effect.number == 0 then
        ngx_header[ffi_str(effect.name, effect.name_length)] = ffi_str(effect.value, effect.value_length)
    elseif kind == LOCAL_RESPONSE then
        return {
            status = effect.number,
            body = ffi_str(effect.value, effect.value_length),
            direct = effect.name_length > 0,
            headers = {},
        }
    elseif kind == LOCAL_RESPONSE_HEADER then
        local headers = response.headers
        headers[#headers + 1] = ffi_str(effect.name, effect.name_length)
        headers[#headers + 1] = ffi_str(effect.value, effect.value_length)
    else
        apply_change(kind, effect)
    end
    return response
end

local _M = {}

-- Applies the effects of an outcome. Returns the local response among them, when there is one: a table of
-- status, body, headers (names and values in turn) and whether its body comes from body_filter.
function _M.apply(outcome)
    local effects = outcome.effects
    local count = tonumber(outcome.effects_length)
    -- LuaJIT cannot compile a loop that it always leaves at once, and after some tries gives up on every
    -- trace that has the loop in it.
    if count == 1 then
        return apply_one(effects[0])
    end
    local response
    for i = 0, count - 1 do
        response = apply_one(effects[i], response)
    end
    return response
end

return _M
