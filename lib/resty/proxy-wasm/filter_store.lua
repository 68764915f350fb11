-- Filters that `proxy-wasm pull` fetched from a registry: where the one of a reference is.

local settings = require("resty.proxy-wasm.settings")

local format = string.format

local SCHEME = "oci://"
local HEXADECIMAL = ("%x"):rep(64)

local _M = {}

-- The file that a path names: itself, or for a reference the file in the store that `setup` named. Nil and why there is
-- none.
function _M.file(reference)
    if reference:sub(1, #SCHEME) ~= SCHEME then
        return reference
    end
    local store = settings.filter_store
    local digest = reference:match("@sha256:(" .. HEXADECIMAL .. ")$")
    if not digest or digest:find("%u") then
        return nil, format("%s has no digest (@sha256:…): proxy-wasm pull says which it has", reference)
    end
    if not store then
        return nil, format("%s is looked for in a store, and none is set: setup{ filter_store = DIR }", reference)
    end
    local path = format("%s/sha256/%s.wasm", store, digest)
    local file = io.open(path, "rb")
    if not file then
        return nil, format("%s is not in %s: proxy-wasm pull --store %s %s", reference, store, store, reference)
    end
    file:close()
    return path
end

return _M
