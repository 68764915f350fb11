-- The addresses of the upstreams of calls.
--
-- Names of /etc/hosts are read from there, once in each worker: nginx's resolver does not know them. Others are nginx's
-- resolver's to know, which a cosocket asks by itself when it connects. Where the address must be judged before that, a
-- UDP socket asks, which sends nothing: the library reads from the system what it was connected to.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")

local ffi_str = ffi.string
local io_open = io.open
local now = ngx.now
local udp = ngx.socket.udp

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error

local HOSTS = "/etc/hosts"
local LONGEST_LINE = 4096

local hosts

-- The addresses by their names in lower case. Of several addresses the first IPv4 address counts, else the first.
local function read_hosts()
    local found = {}
    local file = io_open(HOSTS, "rb")
    for line in file and file:lines() or function() end do
        local address, names = line:sub(1, LONGEST_LINE):gsub("#.*", ""):match("^%s*(%S+)%s+(.*)$")
        local is_v6 = address and address:find(":", 1, true)
        -- An address with a zone is none to nginx.
        if address and not address:find("%", 1, true) then
            for name in names:gmatch("%S+") do
                name = name:lower()
                local before = found[name]
                if not before or not is_v6 and before:sub(1, 1) == "[" then
                    found[name] = is_v6 and "[" .. address .. "]" or address
                end
            end
        end
    end
    if file then
        file:close()
    end
    found.localhost = found.localhost or "127.0.0.1"
    return found
end

local _M = {}

-- The address that /etc/hosts has for a name, or nil.
local function from_hosts(host)
    hosts = hosts or read_hosts()
    return hosts[host:lower():gsub("%.$", "")]
end

-- Ports that no protocol listens at, one for each question under way.
local FIRST_PORT, PORTS = 49152, 16384
local asked = 0

local text = ffi.new("char[64]")

-- The address by nginx's resolver, or nil and why.
local function ask(host, ms)
    local sock, err = udp()
    if not sock then
        return nil, err
    end
    sock:settimeout(ms)
    asked = (asked + 1) % PORTS
    local port = FIRST_PORT + asked
    local ok
    ok, err = sock:setpeername(host, port)
    if not ok then
        return nil, err
    end
    local length = lib.rpw_udp_peer(port, text, 64, error_slot)
    sock:close()
    if length > 0 then
        return ffi_str(text, length)
    end
    return nil, length < 0 and last_error() or "the address that it was resolved to is not known"
end

-- Answers of this second, so that many calls at once ask once.
local KEPT, SECONDS = 256, 1
local answers, count = {}, 0

local function by_nginx(host, ms)
    local answer = answers[host]
    if answer and answer.good_until > now() then
        return answer.address
    end
    local address, err = ask(host, ms)
    if not address then
        return nil, err
    end
    if not answers[host] then
        if count >= KEPT then
            answers, count = {}, 0
        end
        count = count + 1
    end
    answers[host] = { address = address, good_until = now() + SECONDS }
    return address
end

-- The word for what went wrong, after the text of a cosocket.
local function word(err, otherwise)
    if err == "timeout" then
        return "timeout"
    elseif err:find("resolve", 1, true) or err:find("no resolver", 1, true) then
        return "resolver"
    end
    return otherwise
end

_M.word = word
_M.from_hosts = from_hosts

-- What to connect to for a host: an address of /etc/hosts, one that rules permit, or the host itself. `grpc` is 1 for
-- a connection of that id, 0 for a call. The second is true when the address was judged. Nil, a word and details when
-- there is none.
function _M.target(id, grpc, host, is_judged, ms)
    local address = from_hosts(host)
    if not is_judged then
        return address or host, false
    end
    if not address then
        local err
        address, err = by_nginx(host, ms)
        if not address then
            return nil, word(err, "connect"), err
        end
    end
    local permitted = lib.rpw_call_permits(id, grpc, address, #address, error_slot)
    if permitted < 0 then
        return nil, "resolver", last_error()
    elseif permitted == 0 then
        return nil, "refused", host .. " is " .. address .. ", which the filter may not call"
    end
    return address, true
end

return _M
