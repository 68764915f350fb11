-- A response that filters can wait in: it is taken from another location as a whole, the filters are told of it, and
-- only then something is sent. header_filter and body_filter cannot wait.

local header_lines = require("resty.proxy-wasm.http.header_lines")
local response = require("resty.proxy-wasm.http.response")
local stream = require("resty.proxy-wasm.http.stream")

local error = error
local ngx = ngx
local ngx_exit = ngx.exit
local ngx_header = ngx.header
local ngx_print = ngx.print
local ngx_req = ngx.req
local pairs = pairs

local is_of_connection = header_lines.is_of_connection
local has_no_body = response.has_no_body
local tell_unsent_body = stream.tell_unsent_body
local tell_unsent_headers = stream.tell_unsent_headers

local METHODS = {
    GET = ngx.HTTP_GET, HEAD = ngx.HTTP_HEAD, PUT = ngx.HTTP_PUT, POST = ngx.HTTP_POST,
    DELETE = ngx.HTTP_DELETE, OPTIONS = ngx.HTTP_OPTIONS, PATCH = ngx.HTTP_PATCH, TRACE = ngx.HTTP_TRACE,
    MKCOL = ngx.HTTP_MKCOL, COPY = ngx.HTTP_COPY, MOVE = ngx.HTTP_MOVE, PROPFIND = ngx.HTTP_PROPFIND,
    PROPPATCH = ngx.HTTP_PROPPATCH, LOCK = ngx.HTTP_LOCK, UNLOCK = ngx.HTTP_UNLOCK,
}

-- What the location answers to the request as the filters left it.
local function ask(location)
    local name = ngx_req.get_method()
    local method = METHODS[name]
    if not method then
        return nil, "nginx makes no subrequests of the method " .. name
    end
    ngx_req.read_body()
    local answer = ngx.location.capture(location, {
        method = method,
        args = ngx.var.args,
        always_forward_body = true,
        share_all_vars = true,
    })
    -- nginx misses the body of a HEAD.
    if answer.truncated and name ~= "HEAD" then
        return nil, "the response of " .. location .. " ended too early"
    end
    return answer
end

-- Has nginx's own response be that of the location.
local function show(answer)
    ngx.status = answer.status
    for name, value in pairs(answer.header) do
        local lower = name:lower()
        -- The length is that of what the filters leave.
        if lower ~= "content-length" and lower ~= "transfer-encoding" and not is_of_connection(lower) then
            ngx_header[name] = value
        end
    end
end

-- A filter answered in place of the response, whose headers go. Does not return.
local function answer_instead(local_response)
    if local_response then
        header_lines.clear()
    end
    return stream.stop(local_response)
end

-- Sends what `location` answers, after the filters. `skip(ctx, err)`: says of a filter that failed whether the response
-- goes on without it. `refuse()`: answers in place of a response of which a filter failed.
return function(contexts, takes_body, location, skip, refuse)
    local answer, err = ask(location)
    if not answer then
        error(err, 0)
    end
    show(answer)
    for i = #contexts, 1, -1 do
        local ok, what = tell_unsent_headers(contexts[i])
        if ok == false then
            return answer_instead(what)
        elseif not ok and not skip(contexts[i], what) then
            return refuse()
        end
    end
    local body = answer.body
    for i = #contexts, 1, -1 do
        if takes_body[i] then
            local left, ok, what = tell_unsent_body(contexts[i], body)
            if left then
                body = left
            elseif ok == false then
                return answer_instead(what)
            elseif not skip(contexts[i], what) then
                return refuse()
            end
        end
    end
    if ngx_req.get_method() ~= "HEAD" and not has_no_body(ngx.status) then
        ngx_header["Content-Length"] = #body
        ngx_print(body)
    end
    return ngx_exit(ngx.HTTP_OK)
end
