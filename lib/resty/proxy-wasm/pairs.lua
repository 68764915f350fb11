-- Tables of strings by strings, as the library takes them.

local ffi = require("ffi")
require("resty.proxy-wasm.clib")

local ffi_new = ffi.new
local type = type

local _M = {}

-- Whether a value is such a table; what it must be.
function _M.are_strings(value)
    local wanted = "a table of strings by strings"
    if type(value) ~= "table" then
        return nil, wanted
    end
    for key, item in pairs(value) do
        if type(key) ~= "string" or type(item) ~= "string" then
            return nil, wanted
        end
    end
    return true
end

-- A list of pairs and how many. It points to the strings of the table, which must be kept as long.
function _M.strings(of)
    local count = 0
    for _ in pairs(of) do
        count = count + 1
    end
    local list = ffi_new("rpw_pair_t[?]", count + 1)
    local at = 0
    for key, value in pairs(of) do
        list[at].name, list[at].name_length = key, #key
        list[at].value, list[at].value_length = value, #value
        at = at + 1
    end
    return list, count
end

return _M
