-- Local responses: what a filter answers in place of the upstream.

local header_lines = require("resty.proxy-wasm.http.header_lines")

local ngx = ngx
local ngx_header = ngx.header
local ngx_print = ngx.print
local ngx_exit = ngx.exit
local http_version = ngx.req.http_version

local is_of_connection = header_lines.is_of_connection

local function set_header(name, lower, value)
    if value == "" or lower == "content-type" or name:find("_", 1, true) then
        header_lines.set(name, value)
    else
        ngx_header[name] = value
    end
end

local function set_headers(headers)
    local seen = {}
    for i = 1, #headers, 2 do
        local name, value = headers[i], headers[i + 1]
        local lower = name:lower()
        if seen[lower] and lower ~= "content-type" then
            header_lines.add(name, value)
        elseif lower ~= "content-length" and not is_of_connection(lower) then
            seen[lower] = true
            set_header(name, lower, value)
        end
    end
    return seen
end

local NO_CONTENT = 204
local RESET_CONTENT = 205
local NOT_MODIFIED = 304
local SWITCHING_PROTOCOLS = 101

-- Whether a response of that status ends with its headers.
local function has_no_body(status)
    return status == NO_CONTENT or status == NOT_MODIFIED or status == SWITCHING_PROTOCOLS
end

-- Nil keeps nginx from giving the type of an empty body.
local function default_content_type(seen, body)
    if not seen["content-type"] then
        if body ~= "" then
            header_lines.set("Content-Type", "text/plain")
        else
            ngx_header["Content-Type"] = nil
        end
    end
end

local _M = {}

_M.has_no_body = has_no_body

-- From a request phase: sends it and ends the request. Does not return.
-- `own_page`: nginx answers a status without a body, by `error_page` or its own page.
function _M.send(status, headers, body, own_page)
    if own_page and body == "" and status >= 300 and not has_no_body(status) then
        set_headers(headers)
        return ngx_exit(status)
    end
    ngx.status = status
    local seen = set_headers(headers)
    if not has_no_body(status) then
        ngx_header["Content-Length"] = #body
    end
    default_content_type(seen, body)
    ngx_print(body)
    return ngx_exit(ngx.HTTP_OK)
end

-- From header_filter: the headers change places with the upstream's; the body comes out of body_filter, so
-- its length is left to chunked encoding.
function _M.replace_headers(status, headers, body)
    if ngx.status == SWITCHING_PROTOCOLS then
        -- What nginx sends from here on is not a body.
        return ngx_exit(ngx.ERROR)
    end
    header_lines.clear()
    ngx.status = status
    local seen = set_headers(headers)
    if status == RESET_CONTENT then
        ngx_header["Content-Length"] = 0
    end
    if seen["grpc-status"] and body == "" and http_version() >= 2 then
        -- The response ends with its headers: trailers of the upstream would come behind, with its status.
        ngx_header["Content-Length"] = 0
    end
    default_content_type(seen, body)
end

return _M
