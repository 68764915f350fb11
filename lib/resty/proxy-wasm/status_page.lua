-- The status page: one document that asks for the numbers as JSON, at the same address, and draws them. Names of
-- filters and all else that a filter or client chose are in the JSON only, and the document's script puts them in as
-- text.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local document = require("resty.proxy-wasm.status_document")
local json = require("resty.proxy-wasm.json")
local metrics = require("resty.proxy-wasm.metrics")

local encode_base64 = ngx.encode_base64
local ffi_str = ffi.string
local format = string.format
local ngx = ngx

local lib = clib.lib

local DIGEST = 32
local digest = ffi.new("char[?]", DIGEST)

-- How a Content-Security-Policy names an inline script or style.
local function source(text)
    lib.rpw_sha256(text, #text, digest)
    return "'sha256-" .. encode_base64(ffi_str(digest, DIGEST)) .. "'"
end

local page, policy

-- Made when it is first asked for.
local function prepare()
    page = format("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        .. "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Wasm filters</title>\n"
        .. "<style>%s</style>\n</head>\n<body>\n%s\n<script>%s</script>\n</body>\n</html>\n",
        document.style, document.body, document.script)
    policy = format("default-src 'none'; script-src %s; style-src %s; connect-src 'self'; base-uri 'none'; "
        .. "form-action 'none'; frame-ancestors 'none'", source(document.script), source(document.style))
end

local function is_of_host(metric)
    return metric.name:find("^proxy_wasm_") ~= nil
end

-- The metrics of the host; those of filters are theirs to show.
local function of_host(all)
    local kept = {}
    for _, metric in ipairs(all) do
        if is_of_host(metric) then
            if metric.buckets then
                metric.buckets[#metric.buckets].le = "inf"
            end
            kept[#kept + 1] = metric
        end
    end
    return kept
end

local function numbers(version)
    local plugins, err = metrics.plugins()
    if not plugins then
        return nil, err
    end
    local all
    all, err = metrics.list()
    if not all then
        return nil, err
    end
    return {
        version = version,
        now = ngx.now(),
        worker = ngx.worker.pid(),
        plugins = json.list(plugins),
        metrics = json.list(of_host(all)),
    }
end

local _M = {}

-- Answers the request. Nil and the cause when there are no numbers.
function _M.answer(version)
    local method = ngx.req.get_method()
    if method ~= "GET" and method ~= "HEAD" then
        ngx.header["Allow"] = "GET, HEAD"
        return ngx.exit(ngx.HTTP_NOT_ALLOWED)
    end
    local header = ngx.header
    header["Cache-Control"] = "no-store"
    header["X-Content-Type-Options"] = "nosniff"
    header["Referrer-Policy"] = "no-referrer"
    if ngx.var.arg_format == "json" then
        local answer, err = numbers(version)
        if not answer then
            return nil, err
        end
        header["Content-Type"] = "application/json"
        header["Content-Security-Policy"] = "default-src 'none'"
        ngx.print(json.encode(answer))
        return true
    end
    if not page then
        prepare()
    end
    header["Content-Type"] = "text/html; charset=utf-8"
    header["Content-Security-Policy"] = policy
    ngx.print(page)
    return true
end

return _M
