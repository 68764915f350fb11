-- What filters may call: the option and the setting `calls`, as the library takes them.

local ffi = require("ffi")
require("resty.proxy-wasm.clib")

local ffi_new = ffi.new
local type = type

local WANTED = "a table of allow, deny and redis_commands, which are lists of strings"
local KINDS = { "allow", "deny", "redis_commands" }
local IS_KIND = { allow = true, deny = true, redis_commands = true }

local function is_list(value)
    if type(value) ~= "table" then
        return false
    end
    for key, item in pairs(value) do
        if type(key) ~= "number" or type(item) ~= "string" or item == "" then
            return false
        end
    end
    return true
end

local _M = {}

-- Whether a value can be read as rules; what it must be.
function _M.are_rules(value)
    if type(value) ~= "table" then
        return nil, WANTED
    end
    for key, list in pairs(value) do
        if not IS_KIND[key] or not is_list(list) then
            return nil, WANTED
        end
    end
    return true, WANTED
end

-- A list of pairs and how many, and what it points to besides the strings of the rules.
function _M.pairs(rules)
    if not rules then
        return nil, 0
    end
    local kinds, entries = { "deny" }, { "" }
    for _, kind in ipairs(KINDS) do
        if rules[kind] then
            -- An empty entry says that there is a list.
            kinds[#kinds + 1], entries[#entries + 1] = kind, ""
            for _, entry in pairs(rules[kind]) do
                kinds[#kinds + 1], entries[#entries + 1] = kind, entry
            end
        end
    end
    local list = ffi_new("rpw_pair_t[?]", #kinds)
    for i, kind in ipairs(kinds) do
        local pair = list[i - 1]
        pair.name, pair.name_length = kind, #kind
        pair.value, pair.value_length = entries[i], #entries[i]
    end
    return list, #kinds, { kinds, entries }
end

return _M
