-- Header lines that ngx_lua's functions would change in another way than a filter asked: names with underscores,
-- empty values, and headers that nginx has a field for. The library changes nginx's own lists for them. Where it does
-- not know these lists, ngx_lua's functions do what they can.

local ffi = require("ffi")
local base = require("resty.core.base")
local clib = require("resty.proxy-wasm.clib")
local ngx_req_core = require("ngx.req")
local ngx_resp = require("ngx.resp")

local get_request = base.get_request
local get_headers = ngx.resp.get_headers
local http_version = ngx.req.http_version
local ngx_header = ngx.header
local ngx_log = ngx.log
local WARN = ngx.WARN
local ngx_req = ngx.req
local add_to_request = ngx_req_core.add_header
local add_to_response = ngx_resp.add_header

local pairs = pairs

local lib = clib.lib
local OF_REQUEST = clib.const.RPW_HEADERS_OF_REQUEST
local OF_RESPONSE = clib.const.RPW_HEADERS_OF_RESPONSE
local FIELD = clib.const.RPW_LINE_FIELD
local UNKNOWN = clib.const.RPW_LINE_UNKNOWN

local line = ffi.new("rpw_pair_t")

-- Has the library add a line; it borrows name and value for the call.
local function add_line(of, name, value, always)
    line.name, line.name_length = name, #name
    line.value, line.value_length = value, #value
    return lib.rpw_header_line_add(get_request(), of, line, always)
end

-- The HTTP versions from which on a response cannot have these. nginx sends its own of the first two. Clients take a
-- response of HTTP/2 with one of them for malformed.
local OF_CONNECTION = {
    ["connection"] = 0,
    ["transfer-encoding"] = 0,
    ["keep-alive"] = 0,
    ["proxy-connection"] = 0,
    ["upgrade"] = 2,
    ["te"] = 2,
}

local function is_content_type(name)
    return #name == 12 and name:lower() == "content-type"
end

local told = false

-- Returns a result of the library, and says once of a worker that it does not know the lists of a response. Those of
-- a subrequest are not sent to a client.
local function known(rc)
    if rc == UNKNOWN and not told and not ngx.is_subrequest then
        told = true
        ngx_log(WARN, "wasm: the lists of headers of this nginx are not known: names with underscores, ",
            "empty values and further lines of headers that nginx knows are left to ngx_lua")
    end
    return rc
end

local _M = {}

-- Whether a response cannot have a header, which is given in lower case.
function _M.is_of_connection(name)
    local from = OF_CONNECTION[name]
    return from ~= nil and http_version() >= from
end

local is_of_connection = _M.is_of_connection

-- Takes every line of a response header away.
function _M.remove(name)
    -- ngx_lua would take this for the name with hyphens. nginx has no field for a name with underscores.
    if not name:find("_", 1, true) then
        ngx_header[name] = nil
    end
    known(lib.rpw_response_line_remove(get_request(), name, #name))
end

local function set_field(name, value)
    if is_content_type(name) then
        if value == "" then
            ngx_header[name] = nil
            add_line(OF_RESPONSE, name, value, 1)
        else
            ngx_header[name] = value
            lib.rpw_response_charset_forget(get_request())
        end
    elseif value == "" then
        -- The field must point to a line, which ngx_lua does not make for an empty value.
        ngx_header[name] = "-"
        if lib.rpw_response_line_blank(get_request(), name, #name) == UNKNOWN then
            ngx_header[name] = nil
        end
    else
        ngx_header[name] = value
    end
end

-- Adds a line to the response.
function _M.add(name, value)
    if is_of_connection(name:lower()) then
        return
    end
    local rc = known(add_line(OF_RESPONSE, name, value, 0))
    if rc == UNKNOWN then
        add_to_response(name, value)
    elseif rc == FIELD then
        if ngx_header[name] == nil then
            set_field(name, value)
        else
            -- nginx has it in its field alone.
            add_line(OF_RESPONSE, name, value, 1)
        end
    end
end

-- Gives the response one line of that name.
function _M.set(name, value)
    _M.remove(name)
    if is_of_connection(name:lower()) then
        return
    end
    if add_line(OF_RESPONSE, name, value, 0) ~= 0 then
        set_field(name, value)
    end
end

-- Takes every line of the response away.
function _M.clear()
    for name in pairs(get_headers(0, true)) do
        if name ~= "connection" and name ~= "transfer-encoding" then
            ngx_header[name] = nil
        end
    end
    -- Names with underscores, and further lines of headers that nginx has a field for.
    known(lib.rpw_response_line_clear(get_request()))
end

-- Adds a line to the request.
function _M.add_to_request(name, value)
    local rc = add_line(OF_REQUEST, name, value, value == "" and 1 or 0)
    if rc == UNKNOWN then
        add_to_request(name, value)
    elseif rc == FIELD then
        ngx_req.set_header(name, value)
    end
end

-- Gives the request one line of that name.
function _M.set_of_request(name, value)
    if value == "" then
        ngx_req.clear_header(name)
        _M.add_to_request(name, value)
        return
    end
    -- ngx_lua changes the line that nginx has the field for, and leaves the others.
    if lib.rpw_request_line_count(get_request(), name, #name) > 1 then
        ngx_req.clear_header(name)
    end
    ngx_req.set_header(name, value)
end

return _M
