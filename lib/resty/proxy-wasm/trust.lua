-- The certificates of TLS that the library speaks: files that are read here, once.

local clib = require("resty.proxy-wasm.clib")

local format = string.format
local io_open = io.open
local ipairs = ipairs
local pairs = pairs
local type = type

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error

-- Where systems keep the certificates that they trust.
local BUNDLES = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
}

local trusted = false

-- A file's text, or nil and the cause, which names the file.
local function read(path)
    local file, err = io_open(path, "rb")
    if not file then
        return nil, err
    end
    local text = file:read("*a")
    file:close()
    if not text then
        return nil, path .. ": not a file"
    end
    return text
end

-- Trusts the certificates of a file; for HTTP calls, too, when `http` is 1. Nil and the cause when there are none.
local function trust(path, http)
    local pem, err = read(path)
    if not pem then
        return nil, err
    end
    if lib.rpw_trust(pem, #pem, http, error_slot) < 0 then
        return nil, path .. ": " .. last_error()
    end
    trusted = true
    return true
end

local _M = {}

-- Trusts the certificates of a file, in place of the system's.
function _M.set(path)
    return trust(path, 1)
end

-- Trusts those of the system. They are read when they are first needed: few need them, and it takes some milliseconds.
function _M.system()
    for _, path in ipairs(BUNDLES) do
        if trusted or trust(path, 0) then
            return
        end
    end
end

local KEYS = { address = "string", verify = "boolean" }
local FILES = { trusted_certificate = true, certificate = true, certificate_key = true }

local WANTED = "a table of addresses, or of tables with an address, by names, and a function at 1 or none"

-- What is wrong with the table of an upstream; nil when nothing is.
local function wrong(upstream)
    for key, value in pairs(upstream) do
        if FILES[key] then
            if type(value) ~= "string" or value:sub(1, 1) ~= "/" or value:find("\0", 1, true) then
                return format("%s must be an absolute path", key)
            end
        elseif not KEYS[key] then
            return format('unknown key "%s"', tostring(key))
        elseif type(value) ~= KEYS[key] then
            return format("%s must be a %s", key, KEYS[key])
        end
    end
    if not upstream.address then
        return "address is missing"
    elseif not upstream.certificate ~= not upstream.certificate_key then
        return "certificate and certificate_key belong together"
    end
end

-- Whether a value can be `upstreams`; what it must be.
function _M.are_upstreams(value)
    if type(value) ~= "table" then
        return nil, WANTED
    end
    for name, upstream in pairs(value) do
        -- A function at 1 is asked for names that are not listed.
        local is_function = name == 1 and type(upstream) == "function"
        if type(upstream) == "table" and type(name) == "string" then
            local why = wrong(upstream)
            if why then
                return nil, format('%s: upstream "%s": %s', WANTED, name, why)
            end
        elseif not is_function and (type(name) ~= "string" or type(upstream) ~= "string") then
            return nil, WANTED
        end
    end
    return true, WANTED
end

-- The addresses of upstreams by their names, and the function that knows others, if any.
function _M.addresses(upstreams)
    local addresses = {}
    for name, upstream in pairs(upstreams or {}) do
        if type(name) == "string" then
            addresses[name] = type(upstream) == "table" and upstream.address or upstream
        end
    end
    return addresses, upstreams and upstreams[1]
end

local function set_tls(name, upstream)
    local texts = {}
    for key in pairs(FILES) do
        local err
        texts[key] = ""
        if upstream[key] then
            texts[key], err = read(upstream[key])
            if not texts[key] then
                return nil, err
            end
        end
    end
    local verify = upstream.verify ~= false
    if verify and not upstream.trusted_certificate then
        _M.system()
    end
    local ca, certificate, key = texts.trusted_certificate, texts.certificate, texts.certificate_key
    local rc = lib.rpw_upstream_tls(name, #name, ca, #ca, certificate, #certificate, key, #key,
        verify and 1 or 0, error_slot)
    if rc < 0 then
        return nil, last_error()
    end
    return true
end

-- Reads the certificates of upstreams. Nil and the cause when one cannot be used.
function _M.set_upstreams(upstreams)
    for name, upstream in pairs(upstreams or {}) do
        if type(upstream) == "table" and next(upstream, next(upstream)) then
            local ok, err = set_tls(name, upstream)
            if not ok then
                return nil, format('upstream "%s": %s', name, err)
            end
        end
    end
    return true
end

return _M
