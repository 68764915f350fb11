-- JSON, as far as the status page needs it: cjson is not everywhere. No character of a string can end a script or
-- begin a tag, wherever the text is put, and what is no UTF-8 becomes U+FFFD.

local concat = table.concat
local format = string.format
local getmetatable = getmetatable
local setmetatable = setmetatable
local tostring = tostring
local type = type

local LIST = {}

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(char)
    return ESCAPES[char] or format("\\u%04x", char:byte())
end

-- Lua patterns of the forms of UTF-8 beyond ASCII (RFC 3629).
local FORMS = {
    "^[\194-\223][\128-\191]",
    "^\224[\160-\191][\128-\191]",
    "^[\225-\236\238\239][\128-\191][\128-\191]",
    "^\237[\128-\159][\128-\191]",
    "^\240[\144-\191][\128-\191][\128-\191]",
    "^[\241-\243][\128-\191][\128-\191][\128-\191]",
    "^\244[\128-\143][\128-\191][\128-\191]",
}

local function valid(text)
    if not text:find("[\128-\255]") then
        return text
    end
    local out, at = {}, 1
    while at <= #text do
        local from, to = text:find("^[%z\1-\127]+", at)
        for i = 1, #FORMS do
            if from then
                break
            end
            from, to = text:find(FORMS[i], at)
        end
        out[#out + 1] = from and text:sub(from, to) or "\239\191\189"
        at = (to or at) + 1
    end
    return concat(out)
end

local function put(value, out)
    local kind = type(value)
    if kind == "table" then
        local is_list = getmetatable(value) == LIST or value[1] ~= nil
        out[#out + 1] = is_list and "[" or "{"
        local first = #out
        if is_list then
            for i = 1, #value do
                out[#out + 1] = i > 1 and "," or ""
                put(value[i], out)
            end
        else
            for key, item in pairs(value) do
                out[#out + 1] = #out > first and "," or ""
                put(tostring(key), out)
                out[#out + 1] = ":"
                put(item, out)
            end
        end
        out[#out + 1] = is_list and "]" or "}"
    elseif kind == "string" then
        out[#out + 1] = '"' .. valid(value):gsub('[%z\1-\31"\\<>&\127]', escape) .. '"'
    elseif kind == "number" then
        -- There is no JSON for these.
        local finite = value == value and value > -math.huge and value < math.huge
        out[#out + 1] = finite and format("%.14g", value) or "null"
    else
        out[#out + 1] = kind == "boolean" and tostring(value) or "null"
    end
end

local _M = {}

-- A table that is a list also when it is empty.
function _M.list(items)
    return setmetatable(items, LIST)
end

function _M.encode(value)
    local out = {}
    put(value, out)
    return concat(out)
end

return _M
