-- The response's headers as the library takes them where it does not know nginx's list of them.

local ffi = require("ffi")

local get_headers = ngx.resp.get_headers
local ngx_header = ngx.header
local pairs = pairs
local type = type

local INITIAL = 64

local capacity = INITIAL
local list = ffi.new("rpw_pair_t[?]", capacity)

local function grow()
    local wider = ffi.new("rpw_pair_t[?]", capacity * 2)
    ffi.copy(wider, list, capacity * ffi.sizeof("rpw_pair_t"))
    list = wider
    capacity = capacity * 2
end

local function put(at, name, value)
    if at >= capacity then
        grow()
    end
    local pair = list[at]
    pair.name, pair.name_length = name, #name
    pair.value, pair.value_length = value, #value
end

local _M = {}

-- Returns the list and its length, and the table that owns the strings: it must outlive the list's use.
function _M.response_headers()
    -- ngx.resp.get_headers gives a response without a content type the default one, which must not be
    -- sent just because someone looked.
    local typed = ngx_header["Content-Type"] ~= nil
    -- Not the raw names: values of `X-A` and `x-a` would lose their order.
    local headers = get_headers(0)
    if not typed then
        ngx_header["Content-Type"] = nil
        headers["content-type"] = nil
    end
    local count = 0
    for name, value in pairs(headers) do
        if type(value) == "table" then
            for i = 1, #value do
                put(count, name, value[i])
                count = count + 1
            end
        else
            put(count, name, value)
            count = count + 1
        end
    end
    return list, count, headers
end

return _M
